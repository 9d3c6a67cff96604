"""Files that belong together: a reader finds all of the new ones or all of the old."""

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxdiff.util.locks import LOCK, sole_writer

_STAGED, _COMMITTED = ".jaxdiff-staged", ".jaxdiff-committed"


def write_together(folder: Path, files: Mapping[str, Callable[[Path], Any]], key: str) -> None:
    """Let each function write its file of `folder`, and put all of them in their places as one.

    They are written into a folder inside, which a single renaming declares complete, and then moved.
    A process that is killed before that leaves the old files, one killed after it leaves the moves
    to `settle`. The file `key`, without which nobody reads the others, goes first and comes last, so
    that readers who know nothing of this find no mixture either. Other files are left alone.

    Raises:
        ValueError: where another process writes to the folder.
    """
    with sole_writer(folder):
        settle(folder, key)
        staged = folder / _STAGED
        shutil.rmtree(staged, ignore_errors=True)  # of a process that was killed
        staged.mkdir()
        try:
            for name, write in files.items():
                write(staged / name)
                # Some writers let only their user read: as the folder beside it was just made.
                os.chmod(staged / name, staged.stat().st_mode & 0o666)
            os.rename(staged, folder / _COMMITTED)
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise
        settle(folder, key)


def settle(folder: Path, key: str) -> None:
    """Finish what a process that was killed within `write_together` had declared complete."""
    committed = folder / _COMMITTED
    if not committed.is_dir():
        return
    with contextlib.suppress(FileNotFoundError):  # another process settles it too
        if (committed / key).exists():
            (folder / key).unlink(missing_ok=True)
        for path in sorted(committed.iterdir(), key=lambda path: path.name == key):
            os.replace(path, folder / path.name)
        committed.rmdir()


def is_free(folder: Path) -> bool:
    """Whether a folder holds nothing but what interrupted writes and file managers leave."""
    ours = (LOCK, _STAGED, _COMMITTED, ".DS_Store", "Thumbs.db", "desktop.ini")
    return not folder.exists() or all(path.name in ours for path in folder.iterdir())
