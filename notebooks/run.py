"""Execute a notebook from a clean kernel: `python notebooks/run.py 01_ddpm`.

The source is NAME.py, a text file in jupytext's percent format. Executed, it becomes NAME.ipynb,
with outputs and the hash of the text they came from. `--reduced` (fewer steps and images, the same
cells) executes into a temporary folder and leaves NAME.ipynb alone.
"""

import argparse
import hashlib
import os
import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
NAMES = ("01_ddpm", "02_inverse_problems", "03_torch_and_jax", "04_calibrated_posteriors")


def source_hash(name: str) -> str:
    return hashlib.sha256((FOLDER / f"{name}.py").read_bytes()).hexdigest()


def execute(name: str, reduced: bool) -> nbformat.NotebookNode:
    """The executed notebook; raises nbclient.exceptions.CellExecutionError."""
    notebook = jupytext.read(FOLDER / f"{name}.py")
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    environment = os.environ | {"JAXDIFF_REDUCED": "1" if reduced else ""}

    def announce(cell, cell_index):
        print(f"{name}: cell {cell_index + 1} of {len(notebook.cells)}", flush=True)

    client = NotebookClient(
        notebook,
        timeout=None,
        resources={"metadata": {"path": str(FOLDER)}},
        on_cell_start=announce,
    )
    client.execute(env=environment)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of day: another diff at every run
    notebook.metadata["source_sha256"] = source_hash(name)
    return notebook


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NAMES, help="by default all")
    parser.add_argument("--reduced", action="store_true", help="fewer steps and images")
    arguments = parser.parse_args()
    for name in (Path(n).stem for n in arguments.names):
        if name not in NAMES:
            parser.error(f"{name}: expected one of {', '.join(NAMES)}")
        folder = Path(tempfile.mkdtemp()) if arguments.reduced else FOLDER
        notebook = execute(name, arguments.reduced)
        temporary = folder / f".{name}.ipynb.tmp"
        nbformat.write(notebook, temporary)
        temporary.replace(folder / f"{name}.ipynb")
        print(f"{folder / name}.ipynb")


if __name__ == "__main__":
    main()
