"""The notebooks run from a clean kernel, and their stored outputs belong to their text."""

import jupytext
import nbformat
import pytest

from notebooks import run
from tests.conftest import hurried_flags


@pytest.mark.parametrize("name", run.NAMES)
def test_outputs_are_of_this_text(name):
    """Executed in order, to the end, from the text as it is now; else run notebooks/run.py."""
    stored = nbformat.read(run.FOLDER / f"{name}.ipynb", as_version=4)
    source = jupytext.read(run.FOLDER / f"{name}.py")
    assert stored.metadata["source_sha256"] == run.source_hash(name), "stale: run notebooks/run.py"
    assert [c.source for c in stored.cells] == [c.source for c in source.cells]
    code = [c for c in stored.cells if c.cell_type == "code"]
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
    outputs = [o for c in code for o in c.outputs]
    assert not [o for o in outputs if o.output_type == "error"]
    assert sum("image/png" in o.get("data", {}) for o in outputs) >= 2


@pytest.mark.parametrize("name", run.NAMES)
def test_runs_from_a_clean_kernel(name, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", hurried_flags(devices=8))
    notebook = run.execute(name, reduced=True)
    outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    assert not [o for o in outputs if o.output_type == "error"]
