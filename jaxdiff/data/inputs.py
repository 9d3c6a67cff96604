"""What every reader of a person's file keeps to: ceilings on its size, and one kind of error.

A ceiling is checked in the file's header, before anything of the claimed size is allocated. Each
is a number of this module that a program may set, or that an environment variable sets:

    MAX_PIXELS          JAXDIFF_MAX_PIXELS           height × width of an image
    MAX_KERNEL_BYTES    JAXDIFF_MAX_KERNEL_BYTES     a file of kernels, unpacked
    MAX_PACKED_BYTES    JAXDIFF_MAX_PACKED_BYTES     an array of packed images that is compressed
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager


def _ceiling(name: str, default: int) -> int:
    text = os.environ.get(f"JAXDIFF_{name}", str(default))
    if not text.isdigit():
        raise ValueError(f"JAXDIFF_{name}: expected a whole number, got {text!r}")
    return int(text)


MAX_PIXELS = _ceiling("MAX_PIXELS", 40_000_000)
MAX_KERNEL_BYTES = _ceiling("MAX_KERNEL_BYTES", 2**26)
MAX_PACKED_BYTES = _ceiling("MAX_PACKED_BYTES", 2**26)


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


def check_bytes(size: int, ceiling: str) -> None:
    """Raise where `size` is above the ceiling of that name."""
    if size > globals()[ceiling]:
        raise Refused(
            f"{size} bytes, more than {globals()[ceiling]}; JAXDIFF_{ceiling} sets another limit"
        )


def printable(name: object) -> str:
    r"""Text of one line that any UTF-8 terminal and file takes; bytes that are none become \xNN.

    Example:
        >>> printable(os.fsdecode(b"caf\xe9\n.png"))
        'caf\\xe9\\n.png'
    """
    escaped = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(name))
    return "".join(escaped).replace("\\udc", "\\x")
