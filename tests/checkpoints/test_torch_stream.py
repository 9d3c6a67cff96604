"""torch's older files: the same tensors as torch reads, and nothing besides."""

import os
import pickle
import struct
from collections import OrderedDict

import numpy as np
import pytest
import torch

from jaxdiff.checkpoints.tensors import Tensor
from jaxdiff.checkpoints.torch_zip import read_torch_zip


def write(path, content):
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return path


def test_the_same_as_torch(tmp_path):
    """All types, views, parameters, transposed, empty and expanded tensors."""
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    state = OrderedDict(
        whole=base, row=base[1], part=base[1:3, 2:5], transposed=base.T, scalar=torch.tensor(3.0),
        empty=torch.zeros(0, 3), expanded=torch.ones(1).expand(5), parameter=torch.nn.Parameter(base + 1),
        **{str(d): torch.arange(5).to(d) for d in (torch.float64, torch.float16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)},
    )  # fmt: skip
    path = write(tmp_path / "a.pt", state)
    ours = read_torch_zip(path)
    assert list(ours) == list(state)
    for name, tensor in state.items():
        array = ours[name].read()
        assert isinstance(ours[name], Tensor) and ours[name].shape == array.shape
        np.testing.assert_array_equal(array, tensor.detach().numpy())
        assert array.dtype == tensor.detach().numpy().dtype
    half = read_torch_zip(write(tmp_path / "b.pt", {"a": torch.arange(3).to(torch.bfloat16)}))
    assert half["a"].read().astype("f").tolist() == [0, 1, 2]


def test_the_state_of_a_module(tmp_path):
    """Whose ordered dictionary has attributes of its own."""
    module = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.GroupNorm(1, 3))
    assert module.state_dict()._metadata
    ours = read_torch_zip(write(tmp_path / "a.pt", module.state_dict()))
    for name, tensor in module.state_dict().items():
        np.testing.assert_array_equal(ours[name].read(), tensor.numpy())


class Calls:
    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


class Slots:
    """A pickle that sets an attribute of what a name stands for."""

    def __init__(self, name):
        self.name = name

    def __reduce__(self):
        return self.name, (), (None, {"__defaults__": (1,)})


@pytest.mark.parametrize(
    "content",
    [
        {"a": 1},
        {"a": [torch.zeros(1)]},
        [torch.zeros(1)],
        torch.zeros(1),
        {"a": np.zeros(2)},
        {"a": Calls(os.system, "touch was-here")},
        {"a": Calls(exec, "open('was-here', 'w')")},
        {"a": Calls(getattr, OrderedDict, "items")},
        {(1, 2): torch.zeros(1)},
        {"a": Slots(OrderedDict)},
        {1: torch.zeros(1)},
        {"a": Calls(OrderedDict, [((1, (2, 3)), 4)])},
    ],
    ids=lambda c: str(c)[:30],
)
def test_anything_but_tensors_is_refused(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "a.pt", content)
    with pytest.raises(ValueError, match=r"a\.pt: ") as e:
        read_torch_zip(path)
    assert "\n" not in str(e.value)
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


def test_every_cut_is_refused(tmp_path):
    content = write(tmp_path / "a.pt", {"a": torch.arange(9.0), "b": torch.ones(2)}).read_bytes()
    path = tmp_path / "cut.pt"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"cut\.pt"):
            read_torch_zip(path)


def test_every_changed_byte_is_refused_or_read(tmp_path):
    """A damaged file is one line, or reads as tensors of some numbers."""
    content = write(tmp_path / "a.pt", {"a": torch.arange(9.0), "b": torch.ones(2)}).read_bytes()
    path, rng = tmp_path / "changed.pt", np.random.default_rng(0)
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] = rng.integers(256)
        path.write_bytes(changed)
        try:
            tensors = read_torch_zip(path)
        except ValueError as e:
            assert str(path) in str(e)
        else:
            assert all(t.read().size <= 11 for t in tensors.values())


def nested_key() -> bytes:
    """A tuple of itself, thirty deep: to hash it would take 2³⁰ steps."""
    return b"\x80\x02}" + b"K\x01\x85" + b"q\x00h\x00\x86" * 30 + b"K\x01s."


@pytest.mark.parametrize(
    "hostile",
    [
        nested_key(),
        b"\x80\x02}" + b"r" + struct.pack("<I", 2**31) + b".",  # a memo of 2³¹ places
        b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",  # bytes of a terabyte
        b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"}.",  # a frame without an end
        b"\x80\x02cos\nsystem\n.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        b"(S'true'\nios\nsystem\n.",
        pickle.dumps({"a": 1}),
        b"",
        b"not a pickle",
    ],
    ids=lambda b: repr(b)[:30],
)
def test_what_asks_for_code_time_or_memory(hostile, tmp_path):
    begin = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
    begin += pickle.dumps({"little_endian": True}, 2)
    (tmp_path / "a.pt").write_bytes(begin + hostile)
    with pytest.raises(ValueError, match=r"a\.pt"):
        read_torch_zip(tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(hostile)
    with pytest.raises(ValueError, match=r"b\.pt"):
        read_torch_zip(tmp_path / "b.pt")


def test_a_tensor_past_its_storage(tmp_path):
    content = write(tmp_path / "a.pt", {"a": torch.zeros(4)}).read_bytes()
    assert content.count(b"K\x04\x85") == 1  # the shape (4,)
    (tmp_path / "b.pt").write_bytes(content.replace(b"K\x04\x85", b"K\x7f\x85"))
    with pytest.raises(ValueError, match="past its storage"):
        read_torch_zip(tmp_path / "b.pt")
