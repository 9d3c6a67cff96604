"""Read the tensors of a torch `.bin` without torch, and without running anything in it."""

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from jaxdiff.checkpoints.tensors import Tensors
from jaxdiff.checkpoints.torch_pickle import Refused, Storage, check_tensors, run
from jaxdiff.util import limits

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


def read_torch_zip(path: Path) -> Tensors:
    """The state dictionary in a file of `torch.save`: a zip archive, or the form before torch 1.6.

    Nothing is read before it is used: each tensor's bytes are mapped when it is read and unmapped
    when its array goes.

    Raises:
        ValueError: for a file that is neither, is damaged, or holds anything but tensors.
    """
    try:
        with open(path, "rb") as file:
            archive = file.read(2) == b"PK"
        state = (_archive if archive else read_stream)(path)
    except Exception as e:  # zipfile and pickletools raise nearly anything for a damaged file
        reason = e if isinstance(e, ValueError) else f"{type(e).__name__} {e}"
        raise ValueError(f"{path}: holds something besides tensors, or is damaged: {reason}") from e
    return check_tensors(path, state)


def _archive(path: Path):
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
        infos = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in infos if name.split("/")[-1] == "data.pkl"]
        if len(pickles) != 1:
            raise Refused("it has no data.pkl of torch.save")
        root = pickles[0].removesuffix("data.pkl")

        def place(name: str) -> tuple[int, int]:
            """Where a stored member's bytes start, after its local header, and how many it has."""
            if name not in infos:
                raise Refused(f"no {name[:80]!r} in the archive")
            info = infos[name]
            file.seek(info.header_offset)
            signature, lengths = struct.unpack("<4s22x4s", file.read(30))
            start = info.header_offset + 30 + sum(struct.unpack("<2H", lengths))
            stored = info.compress_type == zipfile.ZIP_STORED and signature == b"PK\3\4"
            if not stored or start + info.file_size > size:
                raise Refused(f"{name[:80]!r} is compressed or cut short")
            return start, info.file_size

        def content(name: str) -> bytes:
            start, count = place(name)
            limits.check(f"bytes of {name[:80]!r}", count, "PICKLE_BYTES")
            file.seek(start)
            return file.read(count)

        def storage(dtype: np.dtype, key: str, count: int) -> Storage:
            start, bytes_there = place(f"{root}data/{key}")
            if count * dtype.itemsize > bytes_there:
                raise Refused(f"the storage {key[:80]!r} is cut short")
            return Storage(path, dtype, count, start)

        if f"{root}byteorder" in infos and content(f"{root}byteorder") != b"little":
            raise Refused("written on a big-endian machine, which is not supported")
        return run(io.BytesIO(content(pickles[0])), storage)


def read_stream(path: Path, start: int = 0, size: int | None = None) -> Any:
    """The object of a stream of pickles, torch's form before 1.6, in a part of a file.

    A number, a version, a machine, the object, the storages' keys; each storage's size and numbers.

    Raises:
        Exception: of nearly any kind, for a stream that is damaged or holds anything but tensors.
    """
    end = path.stat().st_size if size is None else start + size
    storages: dict[str, Storage] = {}

    def storage(dtype: np.dtype, key: str, count: int) -> Storage:
        found = storages.setdefault(key, Storage(path, dtype, count))
        if (found.dtype, found.size) != (dtype, count):
            raise Refused(f"two storages {key[:80]!r}")
        return found

    with open(path, "rb") as file:
        file.seek(start)
        head = io.BytesIO(file.read(min(limits.PICKLE_BYTES, end - start)))
        if run(head, storage) != _MAGIC or run(head, storage) != _PROTOCOL:
            raise Refused("no file of torch.save")
        machine, state, keys = (run(head, storage) for _ in range(3))
        if type(machine) is not dict or machine.get("little_endian") is not True:
            raise Refused("written on a big-endian machine, which is not supported")
        if type(keys) is not list or sorted(keys) != sorted(storages):
            raise Refused("other storages than its tensors name")
        start += head.tell()
        for key in keys:
            file.seek(start)
            found = storages[key]
            if file.read(8) != struct.pack("<q", found.size):
                raise Refused(f"the storage {key[:80]!r} is cut short")
            found.start = start + 8
            start = found.start + found.size * found.dtype.itemsize
    if start > end:
        raise Refused("the file is cut short")
    return state
