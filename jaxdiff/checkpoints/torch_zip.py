"""Read the tensors of a torch `.bin` without torch, admitting tensors and nothing besides."""

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np

_STORAGES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


class Tensor(NamedTuple):
    """A tensor of a file: its shape, and a function that reads it."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def read_torch_zip(path: Path) -> dict[str, Tensor]:
    """The state dictionary in a file that `torch.save` wrote (torch 1.6 or newer).

    Nothing is read before it is used: each tensor's bytes are mapped when it is read and unmapped
    when its array goes. The unpickler resolves the names of tensors, storages and ordered
    dictionaries; any other name, and so any code, is refused.

    Raises:
        ValueError: for a file that is no such archive, is damaged, or holds anything but tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = {info.filename: info for info in archive.infolist()}
            pickles = [n for n in infos if n.split("/")[-1] == "data.pkl"]
            if len(pickles) != 1:
                raise ValueError(f"{path}: not a file of torch.save: it has no data.pkl")
            root = pickles[0].removesuffix("data.pkl")
            if archive_byteorder(archive, infos, root) != "little":
                raise ValueError(f"{path}: written on a big-endian machine, which is not supported")
            content = archive.read(pickles[0])
            raw = np.memmap(path, np.uint8, mode="r")
            offsets = {name: _data_offset(raw, info) for name, info in infos.items()}
    except zipfile.BadZipFile as e:
        raise ValueError(
            f"{path}: not a zip file of torch.save: damaged, cut short, or older than torch 1.6 "
            "(install torch and save it again)"
        ) from e

    def load_storage(pid):
        kind, storage, key, _, numel = pid
        name = f"{root}data/{key}"
        if kind != "storage" or name not in infos:
            raise pickle.UnpicklingError(f"missing storage {key!r}")
        dtype = np.dtype(storage)
        size = infos[name].file_size
        if infos[name].compress_type != zipfile.ZIP_STORED or size < numel * dtype.itemsize:
            raise pickle.UnpicklingError(f"storage {key!r} is compressed or cut short")
        return _Storage(path, dtype, offsets[name], numel)

    try:
        state = _TensorUnpickler(io.BytesIO(content), load_storage).load()
    except Exception as e:  # a damaged pickle can raise nearly anything
        raise ValueError(f"{path}: holds something besides tensors, or is damaged: {e}") from e
    check_tensors(path, state, Tensor)
    return dict(state)


def check_tensors(path: Path, state, tensor_type: type) -> None:
    """Raise unless `state` maps names to tensors."""
    if not isinstance(state, dict):
        raise ValueError(f"{path}: expected a dictionary of tensors, got {type(state).__name__}")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, tensor_type):
            raise ValueError(
                f"{path}: expected tensors and nothing besides, but {name!r} is "
                f"of type {type(value).__name__}"
            )


def archive_byteorder(archive: zipfile.ZipFile, infos, root: str) -> str:
    name = f"{root}byteorder"
    return archive.read(name).decode() if name in infos else "little"


def _data_offset(raw, info: zipfile.ZipInfo) -> int:
    """Where a stored member's bytes start: after its local header of 30 bytes, name and extra."""
    start = info.header_offset
    header = raw[start + 26 : start + 30].view("<u2")
    return start + 30 + int(header[0]) + int(header[1])


class _Storage(NamedTuple):
    path: Path
    dtype: np.dtype
    start: int  # in bytes
    size: int  # in numbers


def _rebuild_tensor(storage, offset, shape, strides, *_):
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides))
    if min(strides, default=0) < 0 or offset < 0 or (0 not in shape and last >= storage.size):
        raise pickle.UnpicklingError("a tensor reaches past its storage")

    def read():
        if 0 in shape:
            return np.zeros(shape, storage.dtype)
        size = storage.dtype.itemsize
        start = storage.start + offset * size
        count = last - offset + 1
        numbers = np.memmap(storage.path, storage.dtype, "r", start, count)
        return np.lib.stride_tricks.as_strided(numbers, shape, [s * size for s in strides])

    return Tensor(tuple(shape), read)


class _TensorUnpickler(pickle.Unpickler):
    def __init__(self, file, load_storage):
        super().__init__(file)
        self._load_storage = load_storage

    def persistent_load(self, pid):
        return self._load_storage(pid)

    def find_class(self, module, name):
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
