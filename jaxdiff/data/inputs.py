"""How readers of people's files fail: one kind of error, which names the file in one line."""

from collections.abc import Iterator
from contextlib import contextmanager

from jaxdiff.util.names import printable


class Refused(ValueError):
    """What a reader finds wrong itself, to which `reading` adds the file's name alone."""


@contextmanager
def reading(name: object, what: str) -> Iterator[None]:
    """Turn whatever the reader of a damaged file raises into a ValueError that names the file.

    Files that are absent or may not be read stay the OSErrors they are.

    Example:
        >>> with reading("k.npy", "an array"):
        ...     raise EOFError
        Traceback (most recent call last):
        ValueError: k.npy: not readable as an array (EOFError)
    """
    try:
        yield
    except Refused as e:
        raise ValueError(f"{printable(name)}: {printable(e)}") from e
    except Exception as e:
        if isinstance(e, OSError) and e.filename:
            raise
        text = printable(" ".join(str(e).split()))[:300] or type(e).__name__
        raise ValueError(f"{printable(name)}: not readable as {what} ({text})") from e
