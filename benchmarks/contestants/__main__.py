"""Contestants of `python -m benchmarks` in a process: `python -m benchmarks.contestants`.

Reads names from stdin. At each that contestant does its work and it answers with the seconds; at the
end of input, with the peak memory. One alone in a process has the cores and the memory for itself;
where all are in one, the threads of whoever was before still spin on them.
"""

import argparse
import contextlib
import json
import sys
import time

from benchmarks.contestants import METHODS, Workload, contestant, peak_mb

TURN = 0.3  # seconds


def main() -> None:
    parser = argparse.ArgumentParser(description="Contestants; see python -m benchmarks.")
    parser.add_argument("names", help=f"with commas between, of {', '.join(METHODS)}, gemm")
    parser.add_argument("folder")
    parser.add_argument("workload", help="JSON")
    arguments = parser.parse_args()
    workload = Workload(**json.loads(arguments.workload))
    names, warm = arguments.names.split(","), {}
    if unknown := set(names) - {*METHODS, "gemm"}:
        parser.error(f"no such contestant: {', '.join(unknown)}")
    for name in names:
        started = time.perf_counter()
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for the answers
            run = contestant(name, workload, arguments.folder)
            run()
        print("first", flush=True)
        runs, second = 1, time.perf_counter()
        if second - started < 20:  # once more: the second is not as the third yet
            with contextlib.redirect_stdout(sys.stderr):
                run()
            # Of short work several runs make a turn: the first finds another's data in the caches.
            runs = max(1, round(TURN / (time.perf_counter() - second)))
        warm[name] = run, runs
        print("warm", flush=True)
    for line in sys.stdin:
        run, runs = warm[line.strip()]
        started = time.perf_counter()
        with contextlib.redirect_stdout(sys.stderr):
            said = [run() for _ in range(runs)]
        seconds = (time.perf_counter() - started) / runs
        print(max(said) if line.strip() == "gemm" else seconds, flush=True)
    print(peak_mb(names[0]), flush=True)


if __name__ == "__main__":
    main()
