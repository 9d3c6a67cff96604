"""MATLAB's files: the arrays of numbers, and cells of them, in v5 (v6, v7) and v7.3.

v5 is read here: SciPy's reader follows types and sizes of a damaged file out of its own tables.
The format is MathWorks' "MAT-File Format", chapter 1. v7.3 is HDF5, which `mat73` reads.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxdiff.data.inputs import reading
from jaxdiff.util import limits
from jaxdiff.util.extras import need

Variable = np.ndarray | list[np.ndarray | None] | None

_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8"}
_NUMBERS |= {13: "u8"}
_CELL = 1
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4"}
_CLASSES |= {14: "i8", 15: "u8"}
_COMPLEX = 0x800
MAX_CELLS = 100_000
_HDF5 = b"\x89HDF\r\n\x1a\n"


def read_mat(path: Path) -> dict[str, Variable]:
    """The variables of a .mat: arrays as MATLAB has them, lists for cells, None for what else.

    Of a v7.3 that has a variable `kernels`, that one alone.

    Raises:
        FileNotFoundError; ImportError: for a v7.3 where h5py is not installed.
        ValueError: for a damaged file, another version than v5 or v7.3, links to other files, or
        more than `limits.KERNEL_BYTES`.
    """
    if _is_hdf5(path):
        need("mat", "h5py")
        from jaxdiff.data.mat73 import read_hdf5

        with reading(path, "a .mat file"):
            return read_hdf5(path)
    with reading(path, "a .mat file"):
        limits.check("bytes", path.stat().st_size, "KERNEL_BYTES")
        content = path.read_bytes()
        order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
        if order is None or len(content) < 128:
            raise ValueError("expected MATLAB's v5 or v7.3: save it with -v7")
        return dict(_variables(memoryview(content)[128:], order))


def _is_hdf5(path: Path) -> bool:
    """Whether HDF5's signature stands at the start, or behind MATLAB's own header of 512 bytes."""
    with path.open("rb") as file:
        start = file.read(520)
    return _HDF5 in (start[:8], start[512:])


def _variables(content: memoryview, order: str) -> Iterator[tuple[str, Variable]]:
    unpacked = 0
    for kind, data in _elements(content, order):
        if kind == _COMPRESSED:
            stream = zlib.decompressobj()
            data = memoryview(stream.decompress(data, limits.KERNEL_BYTES + 1))
            unpacked += len(data)
            limits.check("bytes", unpacked, "KERNEL_BYTES")
            if not stream.eof:
                raise ValueError("cut short")
            ((kind, data),) = _elements(data, order)
        if kind == _MATRIX and (variable := _matrix(data, order))[0]:
            yield variable


def _elements(content: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Type and data of each element: tags of 8 bytes, or of 4 with up to 4 bytes of data."""
    at = found = 0
    while at < len(content):
        found += 1
        if at + 8 > len(content) or found > MAX_CELLS:
            raise ValueError("cut short" if found <= MAX_CELLS else f"over {MAX_CELLS} cells")
        kind, size = struct.unpack_from(f"{order}II", content, at)
        start, end = at + 8, at + 8 + size
        if kind >> 16:
            kind, size = kind & 0xFFFF, kind >> 16
            start, end = at + 4, at + 8
        elif kind != _COMPRESSED:
            end += -size % 8
        if start + size > len(content) or (start == at + 4 and size > 4):
            raise ValueError("cut short")
        yield kind, content[start : start + size]
        at = end


def _matrix(content: memoryview, order: str, within: int = 0) -> tuple[str, Variable]:
    parts = list(_elements(content, order))
    if len(parts) < 3 or within > 1:
        return "", None
    flags, dims, name = (data for _, data in parts[:3])
    flags = int(np.frombuffer(flags, f"{order}u4", 1)[0])
    if flags & 0xFF not in (_CELL, *_CLASSES):  # some of which have no size here
        return bytes(name).decode("latin-1"), None
    shape = [int(n) for n in np.frombuffer(dims, f"{order}i4")]
    count, name = math.prod(shape), bytes(name).decode("latin-1")
    if min(shape, default=-1) < 0:
        raise ValueError(f"{name}: of size {shape}")
    if flags & 0xFF == _CELL:
        if count != len(parts) - 3 or any(kind != _MATRIX for kind, _ in parts[3:]):
            raise ValueError(f"{name}: {len(parts) - 3} cells, expected {shape}")
        return name, [_cell(data, order, within) for _, data in parts[3:]]
    kind, data = parts[3] if len(parts) > 3 else (0, b"")
    if kind not in _NUMBERS or count * np.dtype(_NUMBERS[kind]).itemsize != len(data):
        raise ValueError(f"{name}: {len(data)} bytes of type {kind}, expected {shape} numbers")
    if flags & _COMPLEX:
        return name, None
    array = np.frombuffer(data, f"{order}{_NUMBERS[kind]}")
    return name, array.astype(_CLASSES[flags & 0xFF]).reshape(shape, order="F")


def _cell(content: memoryview, order: str, within: int) -> np.ndarray | None:
    value = _matrix(content, order, within + 1)[1]
    return value if isinstance(value, np.ndarray) else None
