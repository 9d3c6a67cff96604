"""A plain install: importing is quick, and what an extra brings is asked for by name."""

import subprocess
import sys

import h5py
import numpy as np
import pytest

from jaxdiff.data import load_kernel
from jaxdiff.util import extras


def test_importing_takes_nothing_that_is_not_used():
    """Names come at their first use: no JAX for a question of the version."""
    code = (
        "import sys, jaxdiff as jd; assert not {'jax', 'flax', 'scipy'} & set(sys.modules); jd.DPS"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def plain(monkeypatch):
    """As if no extra were installed."""
    monkeypatch.setattr(extras, "find_spec", lambda name: None)


def test_a_mat_of_v73_names_its_extra(plain, tmp_path):
    with h5py.File(tmp_path / "k.mat", "w") as file:
        file["kernels"] = np.ones((3, 3))
    with pytest.raises(ImportError, match=r"h5py is not installed: pip install 'jaxdiff\[mat\]'"):
        load_kernel(str(tmp_path / "k.mat"))


def test_a_command_names_its_extra(plain, monkeypatch, capsys):
    from jaxdiff import cli

    message = "error: gradio is not installed: pip install 'jaxdiff[app]'"
    monkeypatch.setattr(sys, "argv", ["jaxdiff", "app"])
    with pytest.raises(SystemExit) as error:
        cli.main()
    assert error.value.code == 2 and capsys.readouterr().err == f"{message}\n"
