"""Ctrl-C, and a few of the kills of `tests.kills` and of the interrupts of `tests.interrupts`."""

import os
import signal
import subprocess
import sys
import time

import pytest

from jaxdiff import data
from tests.conftest import child
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


@pytest.mark.parametrize("command", ["restore", "train"])
def test_ctrl_c_while_it_compiles(command, tmp_path):
    """The process ends soon, by itself, with a line that says what is kept."""
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for name, face in list(data.faces().items())[:4]:
        data.write_image(photographs / f"{name}.png", face)
    out = tmp_path / "out"
    options = {"restore": ["--degrade", "--sampler", "dps"]}
    command = [sys.executable, "-m", "jaxdiff.cli", command, photographs, "--out", out]
    command += options.get(command[3], [])
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    with child(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not (out / "settings.json").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(2)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and time.monotonic() - started < 10, err
    assert err.splitlines()[-1].startswith("stopped: ") and "the same command" in err


BLOCKED = """
import hashlib, sys, time
from jaxdiff.util import interrupts

def waits():
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # C that no signal ends

def swallows():
    while True:
        try:
            time.sleep(1)
        except KeyboardInterrupt:
            pass

interrupts.keep("all of it")
with interrupts.prompt():
    print("ready", flush=True)
    globals()[sys.argv[1]]()
"""


@pytest.mark.parametrize("what", ["waits", "swallows"])
def test_ctrl_c_where_python_does_not_notice(what):
    command = [sys.executable, "-c", BLOCKED, what]
    with child(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err == b"stopped: all of it\n"
    assert time.monotonic() - started < 5
