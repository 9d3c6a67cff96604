"""Files: written under another name and renamed, so that none is ever half there."""

import csv
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxdiff.util import limits

_TEMPORARY = ".writing-"  # how the names begin of what a killed process may leave behind


def replace_file(path: Path, write: Callable[[str], Any]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it to `path`.

    Raises:
        OSError: which names `path`, whatever file it came from.
    """
    try:
        handle, temporary = tempfile.mkstemp(path.suffix[-20:], _TEMPORARY, path.parent)
        os.close(handle)
        try:
            write(temporary)
            os.chmod(temporary, 0o666 & ~umask())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as e:
        raise OSError(e.errno, e.strerror or str(e), str(path)) from e


def temporary_folder(folder: Path) -> Path:
    """A new folder in `folder`, whose name says that it may be removed."""
    return Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=folder))


def publish(temporary: Path, folder: Path, last: str) -> None:
    """Move what is in a temporary folder to `folder`, the file `last` after all others.

    Whoever finds `last` finds all of them, and of one writing: an old one is removed first.
    """
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary.chmod(0o777 & ~umask())
        temporary.rename(folder)
        return
    (folder / last).unlink(missing_ok=True)
    for path in sorted(temporary.iterdir(), key=lambda p: p.name == last):
        path.replace(folder / path.name)
    temporary.rmdir()


def remove_temporaries(folder: Path) -> None:
    """Remove what a process that was killed left in `folder`; only where no other writes to it."""
    for path in folder.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_text(path: Path, text: str) -> None:
    """Replace a file by one with this text, in UTF-8."""
    replace_file(path, lambda p: Path(p).write_text(text, encoding="utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Replace a file by one with this JSON; a number that is not finite, which JSON lacks, is null."""
    text = json.dumps(finite(content), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def finite(content: Any) -> Any:
    """The same tree of dictionaries and lists with None for each number that is not finite.

    Example:
        >>> finite({"psnr": [20.0, float("inf")]})
        {'psnr': [20.0, None]}
    """
    if isinstance(content, Mapping):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def read_json(path: Path) -> dict[str, Any]:
    """A file that holds a JSON object; a ValueError for any other."""
    limits.check(f"{path}: bytes", path.stat().st_size, "JSON_BYTES")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as e:  # UnicodeDecodeError among them
        raise ValueError(f"{path}: not readable as JSON: {e}") from e
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace a CSV by one with these rows, whose columns are the first one's."""

    def fill(temporary):
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    replace_file(path, fill)


def read_csv(path: Path, text: Sequence[str] = (), whole: Sequence[str] = ()) -> list[dict]:
    """The rows of a CSV: columns of text, columns of whole numbers, and numbers in all others.

    An empty cell stays one.

    Raises:
        ValueError: where a cell is no number.
    """
    kinds = dict.fromkeys(text, str) | dict.fromkeys(whole, int)
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [
                {k: v and kinds.get(k, float)(v) for k, v in row.items()}
                for row in csv.DictReader(file)
            ]
    except (ValueError, TypeError, csv.Error) as e:
        raise ValueError(f"{path}: not readable as the CSV it was ({e})") from e


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
