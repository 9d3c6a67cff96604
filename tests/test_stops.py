"""A few of the kills of `tests.kills` and of the interrupts of `tests.interrupts`."""

import subprocess
import sys

import pytest

from tests.interrupts import interrupt
from tests.kills import kill


def test_commands_killed_while_they_replace_what_is_there():
    """calibrate and convert; those that go on from where they were have tests of their own."""
    assert kill(6, only="c") == []


@pytest.mark.slow
def test_every_command_killed():
    assert kill(20, seed=1) == []


@pytest.mark.slow
def test_every_command_interrupted():
    assert interrupt(8) == []


IMPORTING = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
from jaxdiff.cli import main
main()
"""


@pytest.mark.parametrize("module", ["typer", "jax", "flax.nnx"])
def test_ctrl_c_while_it_is_imported(module):
    done = subprocess.run([sys.executable, "-c", IMPORTING, module], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "stopped: nothing was written\n")
