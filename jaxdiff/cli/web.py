"""`jaxdiff app`: the web page."""

from typing import Annotated

import typer

from jaxdiff.cli.terminal import cache_compiled_programs, say
from jaxdiff.util.extras import need


def app(
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="A prior to choose: photos64, faces64, a diffusers folder, or a hub id; once for each.",
            show_default="photos64, faces64",
        ),
    ] = None,
    port: Annotated[int, typer.Option(help="Of 127.0.0.1.", min=1, max=65535)] = 7860,
) -> None:
    """Restore pictures in a web browser, on this machine alone.

    The page is at http://127.0.0.1:PORT until Ctrl-C; no picture is kept.
    """
    need("app", "gradio")
    from jaxdiff.commands.app import serve

    cache_compiled_programs()
    say(f"http://127.0.0.1:{port} (Ctrl-C ends it)")
    serve(model or ["photos64", "faces64"], port)
