"""Where the files of a checkpoint are: in the package, in a folder, on the hub."""

import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from huggingface_hub import (
    _CACHED_NO_EXIST,
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from jaxdiff.util.together import settle

BUNDLED = ("faces64", "photos64")
CONFIG = "config.json"


def find_file(source: str | Path, name: str) -> Path | None:
    """The path of a file of a checkpoint ("photos64", a folder, a hub id), None where it has none."""
    return finder(source)(name)


def finder(
    source: str | Path, revision: str | None = None, token: str | None = None
) -> Callable[[str], Path | None]:
    """A function from a file's name in the checkpoint to its path, or None where it has none.

    On the hub, None means that the hub said so, now or when the file was last asked for; with
    HF_HUB_OFFLINE=1, that the cache does not hold it.

    Raises:
        FileNotFoundError: where there is no such checkpoint. OSError: from the function, where the
            hub does not answer.
    """
    folder = Path(source)
    if str(source) in BUNDLED and not folder.is_dir():
        folder = Path(str(files("jaxdiff"))) / "priors" / str(source)
    if folder.is_dir():
        if revision is not None:
            raise ValueError(f"revision: {source} is a folder here, which has none: leave it out")
        settle(folder, CONFIG)
        return lambda name: path if (path := folder / name).is_file() else None
    if folder.is_file():
        raise FileNotFoundError(f"{source}: a file and no folder: jd.prior reads it (--model)")
    if isinstance(source, Path) or not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)):
        raise FileNotFoundError(
            f"{source}: no such folder; expected {' or '.join(map(repr, BUNDLED))}, a folder of a "
            "diffusers checkpoint, or a hub id such as google/ddpm-ema-celebahq-256"
        )
    return _on_hub(str(source), revision, token)


def scheduler_of_run(folder: Path) -> Path | None:
    """The scheduler of diffusers' training script: RUN/scheduler of RUN/checkpoint-500/unet_ema."""
    while re.fullmatch(r"unet|unet_ema|checkpoint-\d+", folder.name):
        folder = folder.parent
        if (path := folder / "scheduler/scheduler_config.json").is_file():
            return path
    return None


def _on_hub(source: str, revision, token) -> Callable[[str], Path | None]:
    # Without a connection, huggingface_hub tries for half a minute for each file.
    offline = constants.HF_HUB_OFFLINE
    options: dict[str, Any] = {"revision": revision, "token": token}
    if not (offline or _answers(source, revision, token)):
        options["local_files_only"] = True

    def find(name: str) -> Path | None:
        try:
            return Path(hf_hub_download(source, name, **options))
        except LocalEntryNotFoundError as e:  # no proof that there is no such file
            known = _cached(source, revision)
            if _known_absent(source, name, revision) or (offline and known):
                return None
            if not known:
                raise FileNotFoundError(
                    f"{source}: no such folder here, and the hub could not be reached and its "
                    f"cache does not hold it: check the name and the connection{_reason(e)}"
                ) from e
            raise OSError(
                f"{source}: the hub does not say whether it has {name}{_reason(e)}: try again, or "
                "set HF_HUB_OFFLINE=1 to take what the cache holds for all there is"
            ) from e
        except EntryNotFoundError:
            return None
        except RevisionNotFoundError as e:
            raise FileNotFoundError(f"{source}: the hub has no revision {revision!r} of it") from e
        except (RepositoryNotFoundError, GatedRepoError, HFValidationError) as e:
            raise FileNotFoundError(
                f"{source}: no such folder here, and no such repository on the hub that may be "
                f"read with your token ({type(e).__name__})"
            ) from e
        except Exception as e:  # of whichever HTTP library huggingface_hub is built on
            raise OSError(
                f"{source}: {name} could not be downloaded: try again ({_line(e)})"
            ) from e

    return find


def _answers(source: str, revision, token) -> bool:
    """Whether the hub answers at all, be it with an error."""
    try:
        url = hf_hub_url(source, CONFIG, revision=revision)
        get_hf_file_metadata(url, token=token, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except (HfHubHTTPError, HFValidationError):
        return True
    except Exception:  # of whichever HTTP library huggingface_hub is built on
        return False
    return True


def _cached(source: str, revision: str | None) -> bool:
    names = (CONFIG, f"unet/{CONFIG}")
    found = (try_to_load_from_cache(source, name, revision=revision) for name in names)
    return any(isinstance(path, str) for path in found)


def _known_absent(source: str, name: str, revision: str | None) -> bool:
    return try_to_load_from_cache(source, name, revision=revision) is _CACHED_NO_EXIST


def _reason(error: Exception) -> str:
    return f" ({_line(error.__cause__)})" if error.__cause__ else ""


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
