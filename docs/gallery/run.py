"""Run the gallery's scripts, each of which draws its picture: `python docs/gallery/run.py`."""

import os
import runpy
import shutil
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
NAMES = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem != "run")


def main(names: list[str]) -> None:
    """Run those that are named, or all."""
    if unknown := set(names) - set(NAMES):
        sys.exit(f"{', '.join(sorted(unknown))}: expected some of {', '.join(NAMES)}")
    os.chdir(FOLDER)
    for name in names or NAMES:
        runpy.run_path(f"{name}.py")
        print(f"{name}.png", flush=True)
        if name == "deblur":  # the README's picture, too
            shutil.copy(f"{name}.png", "../comparison.png")


if __name__ == "__main__":
    main(sys.argv[1:])
