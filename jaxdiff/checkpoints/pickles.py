"""Unpickling by closed lists of instructions, of names and of keys: no code, no attributes.

Python's pickle is a language whose programs call functions. Here it may push numbers, strings,
lists, dictionaries and sets, and call what its reader has given a `Name`; all else is refused.
"""

import mmap
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

_PLAIN = (
    "PROTO FRAME STOP MARK POP POP_MARK NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG "
    "LONG1 LONG4 FLOAT BINFLOAT UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 SHORT_BINBYTES "
    "EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT EMPTY_SET "
    "PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET GLOBAL STACK_GLOBAL BINPERSID"
).split()


class Window:
    """A part of a file, read through a map of it: its bytes are in memory while they are used."""

    def __init__(self, path: Path, start: int = 0, size: int | None = None):
        self.path, self.start = path, start
        self.size = path.stat().st_size - start if size is None else size

    def numbers(self, dtype: np.dtype, offset: int, count: int) -> np.ndarray:
        """`count` numbers from byte `offset` on."""
        return np.memmap(self.path, dtype, "r", self.start + offset, (count,))


class Held:
    """Bytes in memory, as a `Window`."""

    def __init__(self, content: bytes):
        self.content, self.size = content, len(content)

    def numbers(self, dtype: np.dtype, offset: int, count: int) -> np.ndarray:
        """`count` numbers from byte `offset` on."""
        return np.frombuffer(self.content, dtype, count, offset)


class Stream:
    """The bytes of a Window or of Held, in their order; a large `bytes` object is not copied."""

    def __init__(self, source: Window | Held):
        self.source, self.position, self.by_window = source, 0, False
        if isinstance(source, Held):
            self._bytes, self._start = source.content, 0
        else:
            with open(source.path, "rb") as file:
                self._bytes = (
                    mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if source.size else b""
                )
            self._start = source.start

    def read(self, count: int) -> Any:
        start, left = self.position, self.source.size - self.position
        if not 0 <= count <= left:
            raise EOFError("it is cut short")
        self.position += count
        if self.by_window and isinstance(self.source, Window):
            return Window(self.source.path, self._start + start, count)
        return self._bytes[self._start + start : self._start + start + count]

    def readline(self) -> bytes:
        start = self._start + self.position
        end = self._bytes.find(b"\n", start, self._start + self.source.size)
        return self.read(end + 1 - start if end >= 0 else -1)


class Name(NamedTuple):
    """What a pickle may call: nothing of a file changes it."""

    make: Callable[..., Any]


class Thing:
    """An object of a file, as what it is: the name of its class, and its state."""

    def __init__(self, kind: str):
        self.kind = kind
        self.state: dict[str, Any] = {}


_Base: Any = pickle._Unpickler  # in Python: what it does at an instruction can be replaced


class Unpickler(_Base):
    """Reads one pickle of a Stream; `names` are what it may call, `storage` loads what is beside it.

    Raises:
        Exception: of nearly any kind, for a pickle that is damaged, or wants anything besides.
    """

    dispatch: ClassVar[dict[int, Callable[..., None]]] = {
        code: _Base.dispatch[code] for code in (getattr(pickle, name)[0] for name in _PLAIN)
    }

    def __init__(
        self,
        stream: Stream,
        names: Mapping[tuple[str, str], Name],
        storage: Callable[[Any], Any] | None = None,
    ):
        super().__init__(stream)
        self._stream, self._names, self._storage = stream, names, storage

    def find_class(self, module: str, name: str) -> Name:
        if (module, name) not in self._names:
            raise pickle.UnpicklingError(f"{module[:80]}.{name[:80]} is not allowed")
        return self._names[module, name]

    def persistent_load(self, pid: Any) -> Any:
        if self._storage is None:
            raise pickle.UnpicklingError("it refers to another file")
        return self._storage(pid)

    def load_reduce(self):
        arguments, name = self.stack.pop(), self.stack.pop()
        self.append(_allowed(name).make(*arguments))

    def load_newobj(self):
        arguments, name = self.stack.pop(), self.stack.pop()
        if arguments:
            raise pickle.UnpicklingError("a new object has arguments")
        self.append(_allowed(name).make())

    def load_build(self):
        state, thing = self.stack.pop(), self.stack[-1]
        if isinstance(thing, Thing):
            if not isinstance(state, dict):
                raise pickle.UnpicklingError(f"the state of {thing.kind} is no dictionary")
            thing.state = state
        elif not isinstance(thing, dict):  # an ordered dictionary's attributes are of no use
            raise pickle.UnpicklingError(f"a {type(thing).__name__} has no state")

    def load_setitem(self):
        value, key = self.stack.pop(), self.stack.pop()
        self._set(self.stack[-1], [key, value])

    def load_setitems(self):
        items = self.pop_mark()
        self._set(self.stack[-1], items)

    def _set(self, target: Any, items: list):
        if not isinstance(target, dict) or not all(isinstance(k, str | int) for k in items[::2]):
            raise pickle.UnpicklingError("a dictionary's keys are not strings or integers")
        target.update(zip(items[::2], items[1::2]))

    def load_additems(self):
        items = self.pop_mark()
        self.stack[-1].update(names_of(items))

    def load_bytes(self):
        self._load_bytes(4)

    def load_bytes8(self):
        self._load_bytes(8)

    def _load_bytes(self, width: int):
        count = int.from_bytes(self.read(width), "little")
        self._stream.by_window = True  # a pickle keeps what is large outside its frames
        self.append(self.read(count))
        self._stream.by_window = False

    dispatch |= {
        pickle.REDUCE[0]: load_reduce,
        pickle.NEWOBJ[0]: load_newobj,
        pickle.BUILD[0]: load_build,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.ADDITEMS[0]: load_additems,
        pickle.BINBYTES[0]: load_bytes,
        pickle.BINBYTES8[0]: load_bytes8,
    }


def _allowed(name: Any) -> Name:
    if not isinstance(name, Name):
        raise pickle.UnpicklingError(f"a {type(name).__name__} is called")
    return name


def names_of(items=()) -> set[str]:
    """A set of strings."""
    if not all(isinstance(item, str) for item in items):
        raise pickle.UnpicklingError("a set holds something besides strings")
    return set(items)


def ordered(items=()) -> dict[str, Any]:
    """An ordered dictionary of no items, or of a list of pairs."""
    if not all(len(pair) == 2 and isinstance(pair[0], str) for pair in items):
        raise pickle.UnpicklingError("an ordered dictionary's keys are not strings")
    return dict(items)
