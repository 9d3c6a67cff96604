"""Execute a notebook from a clean kernel: `python notebooks/run.py 01_ddpm`.

The source is NAME.py, a text file in jupytext's percent format; behind its title comes the set-up
that all of them share. Executed, it becomes NAME.ipynb, with outputs and the hash of the text they
came from. `--reduced` (fewer steps and images, the same
cells) executes into a temporary folder and leaves NAME.ipynb alone.
"""

import argparse
import hashlib
import os
import re
import tempfile
import tomllib
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
NAMES = (
    *("01_ddpm", "02_inverse_problems", "03_torch_and_jax", "04_calibrated_posteriors"),
    "05_blind_deblurring",
)
REPOSITORY = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())["project"]["urls"][
    "Homepage"
]
SETUP = """\
# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](COLAB/blob/main/notebooks/NAME.ipynb)
#
# ## Set-up
#
# An empty runtime, such as Colab's, gets jaxdiff by the next cell. On Colab choose a GPU under *Runtime*: JAX is installed there
# for it. JAX uses the first accelerator it sees; nothing below depends on which.

# %%
# %matplotlib inline
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("jaxdiff") is None:
    package = "jaxdiff @ git+URL"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", package], check=True)
"""


def read(name: str) -> nbformat.NotebookNode:
    """A notebook's text: its title, the set-up, and the rest."""
    notebook = jupytext.read(FOLDER / f"{name}.py")
    colab = REPOSITORY.replace("https://github.com", "https://colab.research.google.com/github")
    setup = SETUP.replace("COLAB", colab).replace("NAME", name).replace("URL", REPOSITORY)
    notebook.cells[1:1] = jupytext.reads(setup, "py:percent").cells
    return notebook


def source_hash(name: str) -> str:
    return hashlib.sha256("\n\n".join(c.source for c in read(name).cells).encode()).hexdigest()


def execute(name: str, reduced: bool, folder: Path = FOLDER) -> nbformat.NotebookNode:
    """The notebook executed in a folder; raises nbclient.exceptions.CellExecutionError."""
    notebook = read(name)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    environment = os.environ | {"JAXDIFF_REDUCED": "1" if reduced else ""}

    def announce(cell, cell_index):
        print(f"{name}: cell {cell_index + 1} of {len(notebook.cells)}", flush=True)

    client = NotebookClient(
        notebook,
        timeout=None,
        resources={"metadata": {"path": str(folder)}},
        on_cell_start=announce,
    )
    client.execute(env=environment)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of day: another diff at every run
        for output in cell.get("outputs", []):
            if "text" in output:
                output.text = without_paths(output.text)
    notebook.metadata["source_sha256"] = source_hash(name)
    return notebook


def reworded(name: str) -> nbformat.NotebookNode:
    """The notebook as stored, with today's prose: for a change that touches no code.

    Raises:
        ValueError: where the code is another.
    """
    stored, text = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4), read(name)

    def code(notebook):
        return [c.source for c in notebook.cells if c.cell_type == "code"]

    if code(stored) != code(text):
        raise ValueError(f"{name}: its code changed: execute it")
    executed = iter(c for c in stored.cells if c.cell_type == "code")
    stored.cells = [c if c.cell_type == "markdown" else next(executed) for c in text.cells]
    stored.metadata["source_sha256"] = source_hash(name)
    return stored


def without_paths(text: str) -> str:
    """Text that does not say where on a disk it came from.

    Example:
        >>> without_paths("/home/me/venv/lib/python3.13/site-packages/tqdm/auto.py:21: TqdmWarning")
        'tqdm/auto.py:21: TqdmWarning'
    """
    text = text.replace(f"{FOLDER.parent}/", "").replace(f"{tempfile.gettempdir()}/", "")
    return re.sub(r"/\S*/site-packages/", "", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NAMES, help="by default all")
    parser.add_argument("--reduced", action="store_true", help="fewer steps and images")
    parser.add_argument("--prose", action="store_true", help="the text changed, the code did not")
    arguments = parser.parse_args()
    for name in (Path(n).stem for n in arguments.names):
        if name not in NAMES:
            parser.error(f"{name}: expected one of {', '.join(NAMES)}")
        folder = Path(tempfile.mkdtemp()) if arguments.reduced else FOLDER
        notebook = reworded(name) if arguments.prose else execute(name, arguments.reduced)
        temporary = folder / f".{name}.ipynb.tmp"
        nbformat.write(notebook, temporary)
        temporary.replace(folder / f"{name}.ipynb")
        print(f"{folder / name}.ipynb")


if __name__ == "__main__":
    main()
