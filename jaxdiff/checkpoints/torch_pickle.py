"""The pickle in a file of `torch.save`, run by a machine that knows tensors and nothing besides.

Python's unpickler calls what a pickle names, and sizes its memory by numbers in the pickle. This one
has a closed list of operations and of names, builds plain dictionaries, lists, tuples, numbers and
strings, and hashes nothing but strings and the memo's integers.
"""

import dataclasses
import math
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import ml_dtypes
import numpy as np

from jaxdiff.checkpoints.tensors import Tensor, Tensors

_STORAGES = {
    "torch FloatStorage": np.float32,
    "torch DoubleStorage": np.float64,
    "torch HalfStorage": np.float16,
    "torch BFloat16Storage": ml_dtypes.bfloat16,
    "torch LongStorage": np.int64,
    "torch IntStorage": np.int32,
    "torch ShortStorage": np.int16,
    "torch CharStorage": np.int8,
    "torch ByteStorage": np.uint8,
    "torch BoolStorage": np.bool_,
}
_TENSOR = "torch._utils _rebuild_tensor_v2"
_PARAMETER = "torch._utils _rebuild_parameter"
_ORDERED = "collections OrderedDict"
_LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "INT", "LONG", "BINFLOAT", "FLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "BINSTRING", "SHORT_BINSTRING"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Refused(ValueError):
    """Something in a file besides tensors, or a damaged one."""


@dataclasses.dataclass
class Storage:
    """Where a file holds the numbers of one or more tensors."""

    path: Path
    dtype: np.dtype
    size: int  # in numbers
    start: int = 0  # in bytes


class _Name(str):
    """A name that a pickle asks for, of the closed list: no string of a pickle is one."""


def run(file: IO[bytes], storage: Callable[[np.dtype, str, int], Storage]) -> Any:
    """What the next pickle of `file` describes, with `Tensor`s for its tensors.

    `storage` finds the numbers of a dtype, a key, and a count, which the file names.

    Raises:
        Refused: for an operation, a name or a type that no dictionary of tensors needs.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def above_mark():
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    argument: Any
    for operation, argument, _ in pickletools.genops(file):
        match operation.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                marks.append(len(stack))
            case literal if literal in _LITERALS:
                stack.append(argument)
            case constant if constant in _CONSTANTS:
                stack.append(_CONSTANTS[constant])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "TUPLE":
                stack.append(tuple(above_mark()))
            case short if short in _TUPLES:
                items = stack[-_TUPLES[short] :]
                del stack[-_TUPLES[short] :]
                stack.append(tuple(items))
            case "APPEND" | "APPENDS" as name:
                items = above_mark() if name == "APPENDS" else [stack.pop()]
                _expect(stack[-1], list).extend(items)
            case "SETITEM" | "SETITEMS" as name:
                items = above_mark() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
                target = _expect(stack[-1], dict)
                for key, value in zip(items[::2], items[1::2], strict=True):
                    target[_expect(key, str)] = value
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_allowed(argument))
            case "STACK_GLOBAL":
                name, module = _expect(stack.pop(), str), _expect(stack.pop(), str)
                stack.append(_allowed(f"{module} {name}"))
            case "REDUCE":
                arguments = _expect(stack.pop(), tuple)
                stack.append(_reduce(stack.pop(), arguments))
            case (
                "BUILD"
            ):  # the attribute `_metadata` of a module's ordered dictionary, which is dropped
                stack.pop()
                _expect(stack[-1], dict)
            case "BINPERSID":
                stack.append(_persistent(stack.pop(), storage))
            case other:
                raise Refused(f"the operation {other}")
    raise Refused("no end")


def check_tensors(path: Path, state: Any) -> Tensors:
    """`state`, where it maps names to tensors that have no more bytes than their file.

    Raises:
        ValueError: for anything else.
    """
    if type(state) is not dict:
        raise ValueError(f"{path}: expected a dictionary of tensors, got {type(state).__name__}")
    for name, value in state.items():
        if type(value) is not Tensor:
            raise ValueError(
                f"{path}: expected tensors and nothing besides, but {name[:80]!r} is of type "
                f"{type(value).__name__}"
            )
    size = sum(math.prod(t.shape) * np.dtype(t.dtype).itemsize for t in state.values())
    if size > path.stat().st_size:  # views that repeat their numbers
        raise ValueError(f"{path}: its tensors take {size} bytes, more than the file has")
    return state


def _expect(value, kind: type):
    if type(value) is not kind:
        raise Refused(f"a {type(value).__name__} where a {kind.__name__} belongs")
    return value


def _allowed(name: str) -> _Name:
    if name not in (_TENSOR, _PARAMETER, _ORDERED, *_STORAGES):
        raise Refused(f"{name[:80].replace(' ', '.')} is not allowed")
    return _Name(name)


def _count(value) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise Refused("a size or an offset that is no count")
    return value


def _reduce(function, arguments: tuple):
    match _expect(function, _Name), arguments:
        case str(name), () if name == _ORDERED:
            return {}
        case str(name), (Tensor() as tensor, *_) if name == _PARAMETER:
            return tensor
        case str(name), (Storage() as storage, offset, tuple(shape), tuple(strides), *_) if (
            name == _TENSOR and len(shape) == len(strides)
        ):
            return _tensor(
                storage, _count(offset), tuple(map(_count, shape)), tuple(map(_count, strides))
            )
    raise Refused(f"a call of {function.replace(' ', '.')} with other arguments than torch's")


def _persistent(pid, storage) -> Storage:
    match pid:
        # The last part, None, is of files before torch 1.6.
        case ("storage", _Name() as kind, str(key), str(), count, *rest) if (
            kind in _STORAGES and rest in ([], [None])
        ):
            return storage(np.dtype(_STORAGES[kind]), key, _count(count))
    raise Refused("a storage of another form than torch's")


def _tensor(storage: Storage, offset: int, shape: tuple, strides: tuple) -> Tensor:
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides))
    if 0 not in shape and last >= storage.size:
        raise Refused("a tensor reaches past its storage")

    def read():
        if 0 in shape:
            return np.zeros(shape, storage.dtype)
        size = storage.dtype.itemsize
        numbers = np.memmap(
            storage.path, storage.dtype, "r", storage.start + offset * size, last - offset + 1
        )
        return np.lib.stride_tricks.as_strided(numbers, shape, [s * size for s in strides])

    return Tensor(shape, read, storage.dtype.name)
