"""NumPy's files, read without trusting what their headers claim."""

import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from jaxdiff.data.inputs import Refused, reading
from jaxdiff.util import limits


def read_npy(path: Path) -> np.ndarray:
    """The array of a .npy.

    Raises:
        FileNotFoundError; ValueError: for a damaged file, Python objects, or one above
        `limits.KERNEL_BYTES`.
    """
    with reading(path, "a .npy file"), open(path, "rb") as file:
        size = path.stat().st_size
        limits.check("bytes", size, "KERNEL_BYTES")
        return _array(file, size)


def read_npz(path: Path, *names: str) -> list[np.ndarray]:
    """Arrays of an .npz by their names.

    Raises:
        FileNotFoundError; ValueError: for a damaged file, one without them, Python objects, or an
        array above `limits.PACKED_BYTES` and twice the file.
    """
    with reading(path, "an .npz file"):
        absent = Refused(f"expected an .npz with {' and '.join(names)}")
        if not zipfile.is_zipfile(path):
            raise absent
        with zipfile.ZipFile(path) as archive:
            arrays = []
            for name in names:
                if f"{name}.npy" not in archive.namelist():
                    raise absent
                info = archive.getinfo(f"{name}.npy")
                if info.file_size > 2 * path.stat().st_size:  # packed pictures hardly compress
                    limits.check("bytes", info.file_size, "PACKED_BYTES")
                with archive.open(info) as file:
                    arrays.append(_array(file, info.file_size))
            return arrays


def _array(file: IO[bytes], size: int) -> np.ndarray:
    """The array in a file of that many bytes, which its header has to agree with."""
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"version {version}")
    shape, fortran, dtype = readers[version](file)
    if dtype.kind not in "biufc":
        raise ValueError(f"expected numbers, got {dtype}")
    count = math.prod(shape)
    if min(shape, default=1) < 0 or count * dtype.itemsize != size - file.tell():
        raise ValueError(f"{list(shape)} of {dtype} are not what is in the file")
    array = np.frombuffer(file.read(), dtype, count)
    return array.reshape(shape, order="F" if fortran else "C")
