"""How a command line of ours behaves: where it prints, how it fails, what it keeps on disk."""

import contextlib
import functools
import inspect
import io
import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console, RenderableType
from rich.text import Text

from jaxdiff.util import interrupts
from jaxdiff.util.files import finite

# Names of files are text: nothing in brackets or between colons is markup.
_PLAIN: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False}
console = Console(**_PLAIN)
errors = Console(stderr=True, soft_wrap=True, **_PLAIN)
_LONGEST = 700  # characters of a message
_chosen = {"json": False, "quiet": False, "debug": False}


JsonOption = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show where an error came from.")]
_COMMON = {"json": JsonOption, "quiet": QuietOption, "debug": DebugOption}


def command(function: Callable[..., Any]) -> Callable[..., Any]:
    """With the options that all commands have, and ending in one line whatever goes wrong."""

    @functools.wraps(function)
    def run(**kwargs: Any) -> Any:
        _chosen.update({name: kwargs.pop(name) for name in _COMMON})
        with one_line():
            return function(**kwargs)

    signature = inspect.signature(function)
    keyword = inspect.Parameter.KEYWORD_ONLY
    common = [
        inspect.Parameter(n, keyword, default=False, annotation=a) for n, a in _COMMON.items()
    ]
    parameters = [*signature.parameters.values(), *common]
    described: Any = run
    described.__signature__ = signature.replace(parameters=parameters)
    run.__annotations__ = function.__annotations__ | _COMMON
    return run


def application(**kwargs: Any) -> typer.Typer:
    """A Typer application that takes brackets for text, in its help too."""
    return typer.Typer(
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        **kwargs,
    )


def run_app(app: typer.Typer) -> None:
    """Run it as this process: any name can be printed, and Ctrl-C ends it soon."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # → and names that its encoding lacks
            stream.reconfigure(errors="replace")
    with interrupts.prompt():
        app()


@contextlib.contextmanager
def one_line() -> Iterator[None]:
    """Show warnings and errors as a line each; an error is exit code 2, Ctrl-C 130."""
    before, warnings.showwarning = warnings.showwarning, _show_warning
    try:
        yield
    except (typer.Exit, BrokenPipeError):
        raise
    except KeyboardInterrupt:
        if interrupts.watched():
            interrupts.flush()
            interrupts.leave()
        errors.print(interrupts.line())
        raise typer.Exit(130) from None
    except Exception as e:
        if _chosen["debug"]:
            traceback.print_exc()
        fail(explained(e))
    finally:
        warnings.showwarning = before


def explained(error: Exception) -> str:
    """What a user is told of an error: the thing and, where it is known, the fix."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
        return f"out of memory: pass a smaller --batch-size, or --remat ({text})"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, ValueError | TypeError | OSError | ImportError):
        return text
    if (reason := _no_device()) is not None:
        return reason
    return f"{type(error).__name__}: {text} (--debug shows where)"


def _no_device() -> str | None:
    """Why JAX cannot work here at all, which it says in many ways."""
    import jax

    try:
        jax.devices()
    except Exception as e:
        asked = os.environ.get("JAX_PLATFORMS", "")
        said = " ".join(str(e).split()) or type(e).__name__
        return (
            f"JAX finds no device for JAX_PLATFORMS={asked}: install its plugin, as jax[cuda12], "
            f"or unset it ({said})"
        )
    return None


def fail(message: object) -> NoReturn:
    """One line on stderr, exit code 2."""
    error(message)
    raise typer.Exit(2)


def error(message: object) -> None:
    """One line on stderr."""
    text = " ".join(str(message).split())
    if len(text) > _LONGEST and not _chosen["debug"]:
        text = f"{text[:_LONGEST]}… (--debug shows all)"
    errors.print(Text.assemble(("error:", "red"), " ", text))


def show(result: dict[str, Any], *human: RenderableType) -> None:
    """Print a command's result: as JSON, for people, or not at all."""
    if _chosen["json"]:
        print(json.dumps(finite(result), allow_nan=False))
    elif not _chosen["quiet"]:
        for part in human:
            console.print(part, soft_wrap=isinstance(part, str))


def say(text: str) -> None:
    """Tell who waits at a terminal what takes long."""
    if progress():
        errors.print(Text(text, "dim"))


def progress() -> bool:
    """Whether bars are seen, and wanted."""
    return sys.stderr.isatty() and not (_chosen["quiet"] or _chosen["json"])


def status(text: str) -> AbstractContextManager[Any]:
    """Say what is done while it is."""
    return errors.status(text) if progress() else nullcontext()


def check_writable(path: Path) -> None:
    """Raise before any work where a file could not be written after it."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a file")
    parent = next(p for p in path.absolute().parents if p.exists())
    if not parent.is_dir():
        raise ValueError(f"{parent} is a file, not a folder")
    if not os.access(parent, os.W_OK):
        raise PermissionError(f"{parent}: may not be written to")


def cache_compiled_programs() -> None:
    """Keep compiled programs on disk between runs: an application's choice, not the library's."""
    import jax
    from platformdirs import user_cache_dir

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", user_cache_dir("jaxdiff"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def _show_warning(message, *_: Any) -> None:
    errors.print("warning: " + " ".join(str(message).split()))
