"""Reading a `.bin` that was made to do harm: nothing runs, nothing is read from elsewhere."""

import io
import os
import pickle
import time
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from jaxdiff.checkpoints.torch_zip import read_torch_zip

REBUILD = torch._utils._rebuild_tensor_v2
NUMBERS = np.arange(4, dtype="<f4")


class Call:
    """A call of a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Pid(tuple):
    """What a storage is pickled as."""


class Pickler(pickle.Pickler):
    def persistent_id(self, obj):
        return tuple(obj) if isinstance(obj, Pid) else None


def pickled(content, protocol=2) -> bytes:
    buffer = io.BytesIO()
    Pickler(buffer, protocol).dump(content)
    return buffer.getvalue()


def write(folder: Path, data: bytes) -> Path:
    path = folder / "a.bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", data)
        archive.writestr("a/data/0", NUMBERS.tobytes())
    return path


def storage(kind=torch.FloatStorage, key="0", count=4):
    return Pid(("storage", kind, key, "cpu", count))


def tensor(of=None, offset=0, shape=(4,), strides=(1,)):
    return Call(REBUILD, of or storage(), offset, shape, strides, False, OrderedDict())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_good_one(protocol, tmp_path):
    content = {"a": tensor(), "b": tensor(offset=1, shape=(3, 2), strides=(1, 0))}
    found = read_torch_zip(write(tmp_path, pickled(content, protocol)))
    np.testing.assert_array_equal(found["a"].read(), NUMBERS)
    np.testing.assert_array_equal(found["b"].read(), [[1, 1], [2, 2], [3, 3]])


# (1,) in a pair of itself, and so on: 2**60 numbers to hash, 300 bytes.
NESTED = b"K\x01\x85" + b"".join(bytes((ord("q"), i, ord("h"), i, 0x86)) for i in range(60))

EVIL = {
    "a type that is a string": tensor(storage("O")),
    "a type that is a float's name": tensor(storage("<f4")),
    "a type that is a class": tensor(storage(object)),
    "a type that is a function": tensor(storage(REBUILD)),
    "a count that is a float": tensor(storage(count=4.0)),
    "a count that is true": tensor(storage(count=True)),
    "a count below 0": tensor(storage(count=-1)),
    "a count past the archive": tensor(storage(count=5)),
    "a count of 2**70": tensor(storage(count=2**70)),
    "a key that is a number": tensor(storage(key=0)),
    "a key outside": tensor(storage(key="../data.pkl")),
    "a storage of another form": tensor(Pid(("module", "0"))),
    "an offset below 0": tensor(offset=-1),
    "an offset that is a float": tensor(offset=0.0),
    "an offset past the storage": tensor(offset=1),
    "a shape below 0": tensor(shape=(-4,)),
    "a shape that is a string": tensor(shape="4"),
    "a shape that is a list": tensor(shape=[4]),
    "a shape past the storage": tensor(shape=(5,)),
    "a shape of 2**64": tensor(shape=(2**64,), strides=(0,)),
    "strides below 0": tensor(offset=3, strides=(-1,)),
    "strides past the storage": tensor(strides=(2,)),
    "strides of another length": tensor(strides=(1, 1)),
    "strides that are floats": tensor(strides=(1.0,)),
    "a billion numbers out of one": tensor(shape=(10**9,), strides=(0,)),
    "code": Call(os.system, "touch ran"),
    "an attribute": Call(getattr, torch.FloatStorage, "dtype"),
    "an import": Call(__import__, "ran"),
    "a storage alone": storage(),
    "a name alone": torch.FloatStorage,
    "a number": 1,
    "a list of tensors": [tensor()],
    "an array": np.zeros(2),
    "an ordered dictionary of a function's": Call(OrderedDict, [("a", 1)]),
    "arguments of a tensor that are missing": Call(REBUILD, storage()),
}


@pytest.mark.parametrize("value", EVIL.values(), ids=EVIL.keys())
def test_refused(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, pickled({"good": tensor(), "evil": value}))
    with pytest.raises(ValueError, match=r"a\.bin: ") as error:
        read_torch_zip(path)
    assert len(str(error.value)) < 500 + len(str(path))
    assert not (tmp_path / "ran").exists()


# Opcodes by hand: } an empty dictionary, c a name, b BUILD, s SETITEM, 0 POP, i INST, o OBJ.
BY_HAND = {
    "BUILD on a function": b"}ctorch._utils\n_rebuild_tensor_v2\nN}X\x01\x00\x00\x00aK\x01s\x86b0.",
    "BUILD on a tuple": b")}b.",
    "INST": b"(S'touch ran'\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nS'touch ran'\no.",
    "NEWOBJ": b"ccollections\nOrderedDict\n)\x81.",
    "an extension code": b"\x82\x01.",
    "a persistent name": b"Pthing\n.",
    "a key that is a tensor's name": b"}ctorch\nFloatStorage\nK\x01s.",
    "a call of a string": b"X\x01\x00\x00\x00a)R.",
    "no end": b"}",
    "nothing": b"",
    "an empty stack": b"s.",
    "no mark": b"}u.",
    "a memo that is not there": b"h\x09.",
    "an odd number of items": b"}(X\x01\x00\x00\x00au.",
    "a pickle of text": b"I1\n.",
}


@pytest.mark.parametrize("data", BY_HAND.values(), ids=BY_HAND.keys())
def test_refused_by_hand(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"a\.bin: "):
        read_torch_zip(write(tmp_path, b"\x80\x02" + data))
    assert not (tmp_path / "ran").exists()


def test_what_build_sets_is_dropped(tmp_path):
    """An ordered dictionary of its own `items` is the dictionary, as torch's `_metadata` is none."""
    content = OrderedDict(a=tensor())
    content.things = "no function"  # type: ignore
    long, short = (bytes((ord("X"), len(n), 0, 0, 0)) + n for n in (b"things", b"items"))
    data = pickled(content)
    assert data.count(long) == 1
    found = read_torch_zip(write(tmp_path, data.replace(long, short)))
    assert type(found) is dict and found.keys() == {"a"}


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02}" + NESTED + b"K\x01s.",
        b"\x80\x02}X\x01\x00\x00\x00a" + NESTED + b"s.",
        b"\x80\x02}r\xff\xff\xff\x0f.",  # a memo index of 268,435,455
        b"\x80\x02}p4294967295\n.",
        b"\x80\x02\x8b\x00\x00\x00\x7f.",  # a number of 2 GB
        b"\x80\x04\x8d\x00\x00\x00\x7f\x00\x00\x00\x00.",  # a string of 2 GB
        b"\x80\x02" + b"(" * 10**5 + b"t" * 10**5 + b".",
        b"\x80\x02" + b"}" * (5 << 20) + b".",
    ],
    ids=["key", "value", "memo", "memo-text", "long", "string", "depth", "length"],
)
def test_little_time_and_memory(data, tmp_path):
    path = write(tmp_path, data)
    tracemalloc.start()
    started = time.process_time()
    try:
        assert read_torch_zip(path) == {}
    except ValueError as error:
        assert len(str(error)) < 500 + len(str(path))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.process_time() - started < 10 and most < 100e6


@pytest.mark.parametrize("change", ["compressed", "twice", "none", "big-endian"])
def test_an_archive_of_another_form(change, tmp_path):
    kind = zipfile.ZIP_DEFLATED if change == "compressed" else zipfile.ZIP_STORED
    data = {"a/data.pkl": pickled({"a": tensor()}), "a/data/0": NUMBERS.tobytes()}
    if change == "twice":
        data["b/data.pkl"] = data["a/data.pkl"]
    elif change == "none":
        del data["a/data.pkl"]
    elif change == "big-endian":
        data["a/byteorder"] = b"big"
    with zipfile.ZipFile(tmp_path / "a.bin", "w", kind) as archive:
        for name, content in data.items():
            archive.writestr(name, content)
    with pytest.raises(
        ValueError, match="compressed" if change == "compressed" else "data.pkl|big"
    ):
        read_torch_zip(tmp_path / "a.bin")


def test_before_1_6_cut_short_or_with_other_storages(tmp_path):
    path = tmp_path / "a.bin"
    torch.save({"a": torch.arange(4.0)}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    for wrong in (
        whole[:-1],
        whole[:-17],
        whole[:100],
        whole.replace(b"\x04\0\0\0\0\0\0\0", b"\x05\0\0\0\0\0\0\0"),
    ):
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match=r"a\.bin: "):
            read_torch_zip(path)
