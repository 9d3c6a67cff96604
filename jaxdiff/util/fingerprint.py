"""Identity by content: the images that a result was made of, whatever their folder's name."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path


def of_files(files: Iterable[tuple[str, Path]], beginning: int = -1) -> str:
    """SHA-256 of the names, sizes and contents of files; one that cannot be read counts as that.

    Args:
        beginning: so many bytes of each stand for its content; -1 means all of them.
    """
    digest = hashlib.sha256()
    for name, path in files:
        try:
            with open(path, "rb") as file:
                content = hashlib.sha256(str(os.fstat(file.fileno()).st_size).encode())
                left = beginning
                while left and (part := file.read(2**20 if left < 0 else left)):
                    content.update(part)
                    left = left if left < 0 else left - len(part)
            said = content.hexdigest()
        except OSError:
            said = "not readable"
        digest.update(f"{name}\0{said}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()
