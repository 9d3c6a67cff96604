"""Where the files of a checkpoint are: in the package, in a folder, on the hub."""

import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
)

BUNDLED = ("faces64",)


def find_file(source: str | Path, name: str) -> Path | None:
    """The path of a file of a checkpoint ("faces64", a folder, a hub id), None where it has none."""
    return finder(source)(name)


def finder(source: str | Path) -> Callable[[str], Path | None]:
    """A function from a file's name in the checkpoint to its path, or None where it has none."""
    folder = Path(source)
    if str(source) in BUNDLED and not folder.is_dir():
        folder = Path(str(files("jaxdiff"))) / "priors" / str(source)
    if folder.is_dir():
        return lambda name: path if (path := folder / name).is_file() else None
    if isinstance(source, Path) or not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)):
        raise FileNotFoundError(
            f"{source}: no such folder; expected {' or '.join(map(repr, BUNDLED))}, a folder of a "
            "diffusers checkpoint, or a hub id such as google/ddpm-ema-celebahq-256"
        )

    def find(name: str) -> Path | None:
        try:
            return Path(hf_hub_download(str(source), name))
        except LocalEntryNotFoundError as e:
            if name == "config.json":  # not a missing file but no connection and nothing cached
                raise FileNotFoundError(
                    f"{source}: no such folder here, and the hub could not be reached and its "
                    "cache does not hold it: check the name and the connection"
                ) from e
            return None
        except EntryNotFoundError:
            return None
        except (HfHubHTTPError, HFValidationError) as e:
            raise FileNotFoundError(
                f"{source}: no such folder here, and no such repository on the hub that may be "
                f"read with your token ({type(e).__name__})"
            ) from e

    return find
