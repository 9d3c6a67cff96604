"""The commands of `jaxdiff`, together."""

from typing import Annotated

import typer

import jaxdiff as jd
from jaxdiff.cli.priors import calibrate, convert, sample, train
from jaxdiff.cli.restoring import evaluate, restore
from jaxdiff.cli.terminal import application, command, console
from jaxdiff.cli.web import app as web

app = application(no_args_is_help=True, help="Restore images with a diffusion prior, in JAX.")
for function in (restore, evaluate, sample, calibrate, train, convert, web):
    app.command()(command(function))


def _version(asked: bool) -> None:
    if asked:
        console.print(f"jaxdiff {jd.__version__}")
        raise typer.Exit


@app.callback()
def _all(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print it.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    pass
