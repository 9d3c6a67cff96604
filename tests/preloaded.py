"""Imported once, by the process that `jobs.Running` forks: no backend of JAX is made here."""

import os
import sys

import jax
import matplotlib.pyplot as plt

from jaxdiff import plot
from jaxdiff.cli.application import app
from jaxdiff.cli.terminal import run_app
from jaxdiff.commands import evaluate, restore
from jaxdiff.train import loop
from jaxdiff.util import platform
from tests.conftest import in_a_hurry

__all__ = ["evaluate", "loop", "plot", "plt", "restore", "run"]


def run(arguments: list[str], cache: str, said: str) -> None:
    """`jaxdiff ARGUMENTS`, with what it prints in the file `said`."""
    os.environ |= {"XLA_FLAGS": "", "JAX_COMPILATION_CACHE_DIR": cache}
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    options = platform.compiler_options() | in_a_hurry()
    platform.compiler_options = lambda: options
    with open(said, "w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["jaxdiff", *arguments]
    run_app(app)
