"""Read the tensors of torch's older files, a stream of pickles, without torch and without running code.

`torch.save` wrote them before torch 1.6, and does with `_use_new_zipfile_serialization=False`: a
number, a version, a description of the machine, the object, the list of its storages, and each
storage's size and bytes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxdiff.checkpoints.pickles import Held, Name, Stream, Unpickler, Window, ordered
from jaxdiff.checkpoints.torch_zip import Tensor, check_tensors

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
STORAGES = {
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


def read_torch_legacy(path: str | Path) -> dict[str, Tensor]:
    """The state dictionary in a file of `torch.save` that is a stream of pickles, no archive.

    Nothing is read before it is used: each tensor's bytes are mapped when it is read and unmapped
    when its array goes. Tensors, parameters, storages and ordered dictionaries are admitted; any
    other name, and so any code, is refused.

    Raises:
        ValueError: for a file that is no such stream, is damaged, or holds anything but tensors.
    """
    path = Path(path)
    try:
        state = load_stream(Window(path))
    except OSError:
        raise
    except Exception as e:  # a damaged pickle can raise nearly anything
        raise ValueError(
            f"{path}: not a file of torch.save with tensors and nothing besides, or damaged: {e}"
        ) from e
    check_tensors(path, state, Tensor)
    return state


def load_stream(source: Window | Held) -> Any:
    """The object of a stream: of tensors, or one storage."""
    stream = Stream(source)
    if not _begins_right(stream):
        raise ValueError("it does not begin as torch's older files do")
    machine = Unpickler(stream, {}).load()
    if machine.get("little_endian") is not True:
        raise ValueError("written on a big-endian machine, which is not supported")
    storages: dict[str, Storage] = {}

    def storage(pid):
        kind, dtype, key, _, size, *view = pid
        if kind != "storage" or not isinstance(dtype, Name) or any(v is not None for v in view):
            raise ValueError("a storage of an unknown kind")
        made = dtype.make()
        if not isinstance(made, np.dtype) or not _is_size(size) or not isinstance(key, str):
            raise ValueError("a storage of an unknown kind")
        known = storages.setdefault(key, Storage(made, size))
        if (known.dtype, known.size) != (made, size):
            raise ValueError(f"storage {key[:40]} has two sizes or types")
        return known

    content = Unpickler(stream, NAMES, storage).load()
    keys = Unpickler(stream, {}).load()
    if not isinstance(keys, list) or set(keys) != set(storages) or len(keys) != len(storages):
        raise ValueError("the storages are not those of its tensors")
    for key in keys:
        held = storages[key]
        if int.from_bytes(stream.read(8), "little") != held.size:
            raise ValueError(f"storage {key[:40]} has two sizes")
        held.place(source, stream.position)
        stream.position += held.size * held.dtype.itemsize
        if stream.position > source.size:
            raise EOFError("it is cut short")
    return content


def is_torch_legacy(path: str | Path) -> bool:
    """Whether a file begins as `torch.save` began its streams of pickles."""
    try:
        return _begins_right(Stream(Window(Path(path))))
    except Exception:
        return False


def _begins_right(stream: Stream) -> bool:
    return (Unpickler(stream, {}).load(), Unpickler(stream, {}).load()) == (MAGIC, VERSION)


class Storage:
    """Numbers of one type; where they are is known once the pickle before them has been read."""

    def __init__(self, dtype: np.dtype, size: int):
        self.dtype, self.size = dtype, size
        self._source: Window | Held | None = None
        self._offset = 0

    def place(self, source: Window | Held, offset: int) -> None:
        self._source, self._offset = source, offset

    def numbers(self, first: int, count: int) -> np.ndarray:
        assert self._source is not None  # a stream that ends before it raised
        offset = self._offset + first * self.dtype.itemsize
        return self._source.numbers(self.dtype, offset, count)


def rebuild_tensor(storage, offset, shape, strides, *_) -> Tensor:
    """A view of a storage, checked to lie inside it."""
    if not isinstance(storage, Storage) or not _is_size(offset):
        raise ValueError("a tensor without a storage")
    for sizes in (shape, strides):
        if not isinstance(sizes, tuple) or not all(map(_is_size, sizes)):
            raise ValueError("a tensor's shape is not of integers")
    if len(shape) != len(strides) or len(shape) > 8:
        raise ValueError("a tensor's shape and strides differ in length")
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides))
    if 0 not in shape and last >= storage.size:
        raise ValueError("a tensor reaches past its storage")

    def read() -> np.ndarray:
        if 0 in shape:
            return np.zeros(shape, storage.dtype)
        numbers = storage.numbers(offset, last - offset + 1)
        steps = [s * storage.dtype.itemsize for s in strides]
        return np.lib.stride_tricks.as_strided(numbers, shape, steps, writeable=False)

    return Tensor(shape, read)


def _rebuild_parameter(tensor, *_) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise ValueError("a parameter that is no tensor")
    return tensor


def _is_size(value: Any) -> bool:
    return type(value) is int and value >= 0


NAMES: Mapping[tuple[str, str], Name] = {
    ("torch._utils", "_rebuild_tensor_v2"): Name(rebuild_tensor),
    ("torch._utils", "_rebuild_tensor"): Name(rebuild_tensor),
    ("torch._utils", "_rebuild_parameter"): Name(_rebuild_parameter),
    ("collections", "OrderedDict"): Name(ordered),
    **{
        ("torch", name): Name(lambda dtype=dtype: np.dtype(dtype))
        for name, dtype in STORAGES.items()
    },
}
