"""`python -m tests.fuzz --inputs 10000`."""

import argparse
import sys
from pathlib import Path

from tests.fuzz.run import fuzz

parser = argparse.ArgumentParser(description="Read damaged files with every reader.")
parser.add_argument("--inputs", type=int, default=10_000)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--only", default="", help="seeds whose name begins with it, such as mat73")
parser.add_argument("--seconds", type=float, default=10, help="that one reading may take")
parser.add_argument("--keep", type=Path, help="a folder for the inputs that were found wrong")
options = parser.parse_args()
findings = fuzz(**vars(options))
print(*findings, sep="\n")
sys.exit(bool(findings))
