"""The command line: `jaxdiff restore`, `evaluate`, `sample`, `calibrate`, `train` and `convert`."""

import typer

from jaxdiff.cli.priors import calibrate, convert, sample, train
from jaxdiff.cli.restoring import evaluate, restore
from jaxdiff.cli.terminal import run_app

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Restore images with a diffusion prior, in JAX.",
)
for command in (restore, evaluate, sample, calibrate, train, convert):
    app.command()(command)


def main() -> None:
    """The entry point of `jaxdiff`."""
    run_app(app)
