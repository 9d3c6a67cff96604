"""Imported once, by the process that `jobs.Running` forks: no backend of JAX is made here."""

import os
import signal
import sys
import threading

import jax
import matplotlib.pyplot as plt

from jaxdiff import plot
from jaxdiff.cli.application import app
from jaxdiff.cli.terminal import run_app
from jaxdiff.commands import evaluate, restore
from jaxdiff.train import loop
from tests.conftest import xla_flags

__all__ = ["evaluate", "loop", "plot", "plt", "restore", "run"]

DELAY = 0.05  # seconds
CHANGES = ("open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.chmod")


def run(arguments: list[str], cache: str, said: str, out: str, deadly: float) -> None:
    """`jaxdiff ARGUMENTS`, with what it prints in the file `said`.

    Args:
        deadly: 3.7 means a SIGKILL when 0.7 · DELAY seconds have passed since the third time that
            it opens, makes, renames or removes something in `out`: in the middle of writing, perhaps.
    """
    changes = 0

    def count(event: str, details: tuple) -> None:
        nonlocal changes
        if event in CHANGES and isinstance(details[0], str) and details[0].startswith(out):
            changes += 1
            if changes == int(deadly):
                wait = deadly % 1 * DELAY
                threading.Timer(wait, os.kill, (os.getpid(), signal.SIGKILL)).start()

    os.environ |= {"XLA_FLAGS": xla_flags(devices=1), "JAX_COMPILATION_CACHE_DIR": cache}
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    with open(said, "w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["jaxdiff", *arguments]
    sys.addaudithook(count)
    try:
        run_app(app)
    finally:
        sys.stdout.flush()
        os.write(1, b"\n%d" % changes)
