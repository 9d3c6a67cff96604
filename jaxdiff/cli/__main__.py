"""`python -m jaxdiff.cli`."""

from jaxdiff.cli import main

main()
