"""The notebooks run from a clean kernel, and their stored outputs belong to their text."""

import re

import nbformat
import pytest

from notebooks import run
from tests.conftest import xla_flags


@pytest.mark.parametrize("name", run.NAMES)
def test_outputs_are_of_this_text(name):
    """Executed in order, to the end, from the text as it is now; else run notebooks/run.py."""
    stored = nbformat.read(run.FOLDER / f"{name}.ipynb", as_version=4)
    source = run.read(name)
    assert stored.metadata["source_sha256"] == run.source_hash(name), "stale: run notebooks/run.py"
    assert [c.source for c in stored.cells] == [c.source for c in source.cells]
    code = [c for c in stored.cells if c.cell_type == "code"]
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
    outputs = [o for c in code for o in c.outputs]
    assert not [o for o in outputs if o.output_type == "error"]
    assert sum("image/png" in o.get("data", {}) for o in outputs) >= 2


def stable(notebook) -> list[float]:
    """The numbers that the cells print which are the same in the reduced setting."""
    cells = [c for c in notebook.cells if "stable" in c.metadata.get("tags", [])]
    text = "".join(o.text for c in cells for o in c.outputs if "text" in o)
    return [float(number) for number in re.findall(r"\d+\.\d+", text)]


@pytest.mark.parametrize("name", run.NAMES)
def test_runs_from_a_clean_kernel(name, tmp_path, monkeypatch):
    """From an empty folder; and what it computes is what the stored outputs show, to 0.05 dB."""
    monkeypatch.setenv("XLA_FLAGS", xla_flags(devices=8))
    monkeypatch.setenv("PYTHONPATH", str(run.FOLDER.parent))
    notebook = run.execute(name, reduced=True, folder=tmp_path)
    outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    assert not [o for o in outputs if o.output_type == "error"]
    stored = nbformat.read(run.FOLDER / f"{name}.ipynb", as_version=4)
    assert stable(stored) == pytest.approx(stable(notebook), abs=0.05), "run notebooks/run.py"


def test_every_notebook_has_figures_that_are_held():
    counts = [len(stable(nbformat.read(path, 4))) for path in sorted(run.FOLDER.glob("*.ipynb"))]
    assert len(counts) == len(run.NAMES) and min(counts) >= 1


def test_the_questions_are_in_the_course_s_order():
    text = "\n".join(c.source for name in run.NAMES[:2] for c in run.read(name).cells)
    assert re.findall(r"^## Question (\d)\n\n> ", text, re.M) == list("12345678")


def test_outputs_hold_no_paths():
    for path in run.FOLDER.glob("*.ipynb"):
        text = "".join(
            o.get("text", "") for c in nbformat.read(path, 4).cells for o in c.get("outputs", [])
        )
        assert not re.search(r"(/home|/root|/usr|/tmp|/work|site-packages)/", text), path
