"""The command line: `jaxdiff restore`, `evaluate`, `sample`, `calibrate`, `train`, `convert` and `app`."""

import lazy_loader

from jaxdiff.util import interrupts

# Not imported with the package: Ctrl-C is heeded first.
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"application": ["app"]})


def main() -> None:
    """The entry point of `jaxdiff`."""
    with interrupts.at_once():
        from jaxdiff.cli.application import app
        from jaxdiff.cli.terminal import run_app
    run_app(app)
