"""Names of files that people gave, as names of folders and as text."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePath

_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f-\x9f<>:"/\\|?*\ud800-\udfff]')  # somewhere
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # of Windows
_LONGEST = 200  # bytes, of the 255 that most file systems take


def folder_names(images: Sequence[PurePath], reserved: Iterable[str] = ()) -> list[str]:
    """A folder's name for each image of a list of relative paths: no two alike, none elsewhere.

    It is the path without its suffix, with the suffix where another image has the same stem, and
    with a number where that is taken too. What some file system forbids becomes `_`. `reserved`
    are names that no folder may have. The same list gives the same names.

    Example:
        >>> folder_names([PurePath(p) for p in ("a.png", "b/c.png", "b/c.jpg", "...png")])
        ['a', 'b/c.png', 'b/c.jpg', '_']
    """
    avoided = {_folded(name) for name in reserved}

    def safe(part: str) -> str:
        part = _FORBIDDEN.sub("_", part).strip(" ").rstrip(".")
        part = "_" + part.lstrip(".") if part.startswith(".") or not part else part
        part = "_" + part if _DEVICES.match(part) or _folded(part) in avoided else part
        return part.encode()[:_LONGEST].decode(errors="ignore")

    parents = ["/".join(map(safe, image.parts[:-1])) for image in images]
    stems = [f"{parent}/{safe(image.stem)}".lstrip("/") for parent, image in zip(parents, images)]
    count = Counter(map(_folded, stems))
    # A folder of images holds no pictures of its own: `b.png` beside `b/c.png` is not named `b`.
    taken = {
        _folded("/".join(p.split("/")[:n])) for p in parents for n in range(1, p.count("/") + 2)
    }
    names = []
    for parent, stem, image in zip(parents, stems, images):
        name = f"{parent}/{safe(image.name)}".lstrip("/")
        wanted = [stem] if count[_folded(stem)] == 1 else []
        wanted += [name, *(f"{name}-{n}" for n in range(2, len(images) + 2))]
        names.append(next(w for w in wanted if _folded(w) not in taken))
        taken.add(_folded(names[-1]))
    return names


def printable(text: object) -> str:
    r"""A name, or what a library says of it, as one line that any UTF-8 terminal and file takes.

    Bytes of a name that are no UTF-8 become \xNN.

    Example:
        >>> import os
        >>> printable(os.fsdecode(b"caf\xe9\n.png"))
        'caf\\xe9\\n.png'
    """
    escaped = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
    return "".join(escaped).replace("\\udc", "\\x")


def _folded(name: str) -> str:
    """Names that some file system takes for the same are equal."""
    return unicodedata.normalize("NFC", name).casefold()
