"""How a command line of ours behaves: where it prints, how it fails, what it keeps on disk."""

import os
import warnings
from pathlib import Path
from typing import NoReturn

import typer
from rich.console import Console

console = Console()
errors = Console(stderr=True, soft_wrap=True, highlight=False)


def writable_parent(path: Path) -> None:
    """Raise before any work where `path` could not be written after it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a file")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"{path.parent}: may not be written to")


def cache_compiled_programs() -> None:
    """Keep compiled programs on disk between runs: an application's choice, not the library's."""
    import jax
    from platformdirs import user_cache_dir

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", user_cache_dir("jaxdiff"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def fail(message: object) -> NoReturn:
    """One line on stderr, exit code 2."""
    errors.print("[red]error:[/red]", " ".join(str(message).split()), markup=True)
    raise SystemExit(2)


def run_app(app: typer.Typer) -> None:
    """Run a command line that shows warnings as a line and lets no traceback reach its user."""
    warnings.showwarning = lambda message, *_: errors.print(f"warning: {message}", markup=False)
    try:
        app(standalone_mode=True)
    except (ValueError, TypeError, OSError) as e:
        fail(f"{e.filename}: {e.strerror}" if isinstance(e, OSError) and e.strerror else e)
    except KeyboardInterrupt:
        errors.print("stopped")
        raise SystemExit(130) from None
