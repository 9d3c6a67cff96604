"""Identity by content: what a result was made of, whatever its name."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np


def of_arrays(tree: Any) -> str:
    """SHA-256 of the arrays of a pytree (weights, a table, an operator), with their places in it.

    Example:
        >>> of_arrays({"a": np.ones(3)}) == of_arrays({"a": np.ones(3)})
        True
        >>> of_arrays({"a": np.ones(3)}) == of_arrays({"b": np.ones(3)})
        False
    """
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        array = np.asarray(leaf, order="C")
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data if array.size else b"")
    return digest.hexdigest()


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
