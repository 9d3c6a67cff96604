"""MATLAB's files of v7.3, which are HDF5."""

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from jaxdiff.data.inputs import Refused
from jaxdiff.data.mat import MAX_CELLS, Variable
from jaxdiff.util import limits


def read_hdf5(path: Path) -> dict[str, Variable]:
    """The variables of a file as `read_mat` gives them."""
    variables: dict[str, Variable] = {}
    unpacked = 0
    file: Any
    with h5py.File(path, "r") as file:
        # Of a file that has kernels, all else may be as large as it likes.
        for name in ["kernels"] if "kernels" in file else [str(name) for name in file]:
            if name.startswith("#"):  # where MATLAB keeps what cells refer to
                continue
            if not isinstance(file.get(name, getlink=True), h5py.HardLink):
                raise Refused(f"{name} is a link to another place")
            found = variables[name] = _hdf5_variable(file, file[name])
            arrays = found if isinstance(found, list) else [found]
            unpacked += sum(a.nbytes for a in arrays if a is not None)
            limits.check("bytes", unpacked, "KERNEL_BYTES")
    return variables


def _hdf5_variable(file: Any, item: Any) -> Variable:
    if isinstance(item, h5py.Dataset) and h5py.check_ref_dtype(item.dtype) is h5py.Reference:
        if (item.size or 0) > MAX_CELLS:
            raise Refused(f"{item.name}: {item.size} cells")
        _check_dataset(item)
        cells = [file[ref] if ref else None for ref in item[()].ravel()]
        limits.check(
            "bytes", sum(c.nbytes for c in cells if isinstance(c, h5py.Dataset)), "KERNEL_BYTES"
        )
        return [_hdf5_array(cell) for cell in cells]
    return _hdf5_array(item)


def _hdf5_array(item: Any) -> np.ndarray | None:
    text = (b"char", "char")  # which is stored as numbers, too
    if not isinstance(item, h5py.Dataset) or item.attrs.get("MATLAB_class") in text:
        return None
    if item.dtype.kind not in "biuf" or item.shape is None:
        return None
    _check_dataset(item)
    return item[()].T  # which MATLAB stores transposed


def _check_dataset(item) -> None:
    if item.external or item.is_virtual:
        raise Refused(f"{item.name} lies in another file")
    chunk = math.prod(item.chunks or ()) * item.dtype.itemsize
    limits.check("bytes", max(item.nbytes, chunk), "KERNEL_BYTES")
