"""Damaged and hostile files for every reader: `python -m tests.fuzz --inputs 10000`.

A seed is a small valid file (`seeds`), an input one with random changes (`mutate`), both functions
of a number. A child process (`child`) reads it with the address space limited and reports; the
parent (`run`) holds it to a time limit and starts another where it dies. Right is a true reading,
or one ValueError or OSError that names the file, without a crash, a hang, a process, a connection,
a written file, or an allocation of the size that a header claims.
"""
