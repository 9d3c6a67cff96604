"""One writer to a folder at a time."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".lock"


@contextlib.contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Keep a folder for this process, which may do so within itself; it is made where it is not there.

    What nothing was written to is removed again.

    Raises:
        ValueError: where another process keeps it.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, is_singleton=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"{folder}: another jaxdiff is writing to it: wait, or name another folder"
        ) from None
    try:
        yield
    finally:
        if lock.lock_counter == 1:
            with contextlib.suppress(OSError):  # Windows removes no file that is open
                (folder / LOCK).unlink()
            if made and not any(folder.iterdir()):
                folder.rmdir()
        lock.release()
