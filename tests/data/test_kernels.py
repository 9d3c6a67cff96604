"""Kernels from files: what MATLAB and NumPy hold, at the scale that a blur needs."""

import io
import re
import struct

import h5py
import numpy as np
import pytest
import scipy.io
from PIL import Image

from jaxdiff import data
from jaxdiff.data.mat import read_mat
from jaxdiff.util import limits
from tests.conftest import shared

KERNEL = np.outer([1, 4, 6, 4, 1], [1, 2, 1]) / 64


def cells(*arrays):
    made = np.empty((1, len(arrays)), object)
    for i, array in enumerate(arrays):
        made[0, i] = array
    return made


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", "f8 f4 u1 i1 u2 i2 u4 i4 u8 i8 ?".split())
def test_v5_as_scipy_reads_it(kind, packed, tmp_path):
    array = np.arange(1, 31).reshape(2, 3, 5).astype(kind)
    path = tmp_path / "k.mat"
    kept = {"a": array, "c": cells(array[0], array[1].T), "e": np.zeros((0, 3)), "long_name": 2.5}
    others = {"text": "kernel", "record": {"x": 1}, "z": 1j * np.ones((2, 2))}
    scipy.io.savemat(path, kept | others, do_compression=packed)
    theirs, ours = scipy.io.loadmat(path), read_mat(path)
    assert ours.keys() == (kept | others).keys()
    assert all(ours[name] is None for name in others)
    for name in ("a", "e", "long_name"):
        np.testing.assert_array_equal(ours[name], theirs[name], strict=True)
    for a, b in zip(ours["c"], theirs["c"].ravel()):
        np.testing.assert_array_equal(a, b, strict=True)


def test_v5_of_a_big_endian_machine(tmp_path):
    def element(kind, content):
        return struct.pack(">II", kind, len(content)) + content + b"\0" * (-len(content) % 8)

    parts = [(6, struct.pack(">II", 6, 0)), (5, struct.pack(">ii", 5, 3)), (1, b"k")]
    parts += [(9, KERNEL.T.astype(">f8").tobytes())]
    header = b"MATLAB 5.0".ljust(124) + b"\1\0MI"
    path = tmp_path / "k.mat"
    path.write_bytes(header + element(14, b"".join(element(*part) for part in parts)))
    np.testing.assert_array_equal(scipy.io.loadmat(path)["k"], KERNEL)
    np.testing.assert_array_equal(data.load_kernel(str(path)), KERNEL)


def test_every_flipped_bit_of_a_v5(tmp_path):
    """SciPy's reader takes the process with it for one in a hundred."""
    written = io.BytesIO()
    scipy.io.savemat(written, {"kernels": cells(KERNEL, KERNEL)})
    content, path = written.getvalue(), tmp_path / "k.mat"
    for bit in range(126 * 8, len(content) * 8):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            read_mat(path)
        except ValueError as e:
            assert str(e).startswith(f"{path}: not readable as a .mat file")


def v73(path, **variables):
    """As MATLAB writes it: transposed, cells by reference, a struct as a group."""
    with h5py.File(path, "w") as file:
        for name, value in variables.items():
            if isinstance(value, list):
                kept = [
                    file.create_dataset(f"#refs#/{name}{i}", data=v.T) for i, v in enumerate(value)
                ]
                refs = np.array([[item.ref] for item in kept], h5py.ref_dtype)
                file.create_dataset(name, data=refs)
            elif isinstance(value, dict):
                for key, item in value.items():
                    file.create_dataset(f"{name}/{key}", data=item)
            else:
                file.create_dataset(name, data=np.asarray(value).T)


@pytest.mark.parametrize(
    "variables",
    [
        {"kernels": [KERNEL, KERNEL.T, KERNEL * 0.8], "options": {"sigma": [[0.1]]}},
        {"kernels": np.stack([KERNEL, KERNEL[::-1], KERNEL * 1.1], -1), "note": np.ones((1, 1))},
        {"psf": np.stack([KERNEL, KERNEL[::-1], KERNEL * 1.1], -1), "how": {"x": [[1.0]]}},
        {"stack": [KERNEL, KERNEL * 0.9, KERNEL.T]},
    ],
    ids=["struct-beside-cells", "3-d", "only-array-beside-a-struct", "only-cells"],
)
@pytest.mark.parametrize("name", ["k.mat", "K.MAT"])
def test_both_versions_hold_the_same(variables, name, tmp_path):
    new, old = tmp_path / "new" / name, tmp_path / "old" / name
    new.parent.mkdir()
    old.parent.mkdir()
    v73(new, **variables)
    scipy.io.savemat(
        old,
        {k: cells(*v) if isinstance(v, list) else v for k, v in variables.items()},
        appendmat=False,
    )
    value = next(iter(variables.values()))
    expected = value if isinstance(value, list) else list(np.moveaxis(value, -1, 0))
    for path in (new, old):
        for found, right in zip(data.load_kernels(path), expected, strict=True):
            np.testing.assert_array_equal(found, right)
        np.testing.assert_array_equal(data.load_kernel(f"{path}:2"), expected[2])
        with pytest.raises(ValueError, match="holds 3 kernels"):
            data.load_kernel(f"{path}:3")


@pytest.mark.parametrize(
    "kernel",
    [
        (KERNEL * 64).astype(np.uint8),
        (KERNEL * 64 * 900).astype(np.int32),
        KERNEL > 2 / 64,
        KERNEL * 64,  # MATLAB's numbers are doubles, whatever they were
    ],
    ids=["uint8", "int32", "bool", "counts"],
)
@pytest.mark.parametrize("suffix", ["mat", "npy"])
def test_whole_numbers_are_divided_by_their_sum(kernel, suffix, tmp_path):
    path = tmp_path / f"k.{suffix}"
    if suffix == "npy":
        np.save(path, kernel)
    else:
        scipy.io.savemat(path, {"kernel": kernel})
    with pytest.warns(UserWarning, match=rf"{path}: whole numbers, .* {kernel.sum():g}$"):
        found = data.load_kernel(str(path))
    np.testing.assert_allclose(found, kernel / kernel.sum())


@pytest.mark.parametrize("total", [0.6, 1.02, 1.16, 1.9])
def test_a_kernel_that_is_about_1_is_used_as_it_is(total, tmp_path):
    np.save(tmp_path / "k.npy", KERNEL * total)
    np.testing.assert_array_equal(data.load_kernel(str(tmp_path / "k.npy")), KERNEL * total)
    np.save(tmp_path / "delta.npy", np.eye(1))
    assert data.load_kernel(str(tmp_path / "delta.npy")).tolist() == [[1.0]]


@pytest.mark.parametrize("total", [0.02, 13.5, 255.5])
def test_another_scale_is_warned_of_by_name(total, tmp_path):
    np.save(tmp_path / "k.npy", KERNEL * total)
    with pytest.warns(UserWarning, match=rf"k\.npy: sums to {total:g}"):
        np.testing.assert_array_equal(data.load_kernel(str(tmp_path / "k.npy")), KERNEL * total)


def test_a_negative_is_warned_of(tmp_path):
    picture = np.full((9, 9), 255, np.uint8)
    picture[3:6, 3:6] = 0
    Image.fromarray(picture).save(tmp_path / "k.png")
    with pytest.warns(UserWarning, match=r"k\.png: brighter all around"):
        data.load_kernel(str(tmp_path / "k.png"))


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (np.zeros((3, 3)), "sums to 0"),
        (np.zeros((3, 3), np.uint8), "sums to 0"),
        (-KERNEL, "sums to -1"),
        (np.array([[1.0, -1.0]]), "sums to 0"),
        (np.array([[0, -2, 1]], np.int8), "sums to -1"),
        (np.array([[1.0, np.nan]]), "NaN"),
        (np.array([[1.0, np.inf]]), "infinite"),
        (np.full((2, 2), 1e308), "sums to inf"),
        (np.ones((2, 2, 2)), r"\[2, 2, 2\]"),
        (np.ones((0, 3)), r"\[0, 3\]"),
        (KERNEL * 1j, "complex128"),
    ],
)
def test_kernels_that_are_none(kernel, message, tmp_path):
    np.save(tmp_path / "k.npy", kernel)
    with pytest.raises(ValueError, match=rf"k\.npy: .*{message}"):
        data.load_kernel(str(tmp_path / "k.npy"))
    if kernel.ndim == 2:
        scipy.io.savemat(tmp_path / "k.mat", {"kernels": cells(kernel, KERNEL)})
        with pytest.raises(ValueError, match=r"k\.mat"):
            data.load_kernel(str(tmp_path / "k.mat"))
        with pytest.raises(ValueError, match=r"k\.mat:0"):
            data.load_kernels(tmp_path / "k.mat")
        np.testing.assert_array_equal(data.load_kernel(f"{tmp_path}/k.mat:1"), KERNEL)


def outside(file):
    file["kernels"] = h5py.ExternalLink("/etc/hostname", "x")


def soft(file):
    file["outside"] = h5py.ExternalLink("/etc/hostname", "x")
    file["kernels"] = h5py.SoftLink("/outside/x")


def raw(file):
    file.create_dataset("kernels", (2, 2), "u1", external=[("/etc/hostname", 0, 4)])


def raw_cell(file):
    held = file.create_dataset("#refs#/a", (2, 2), "u1", external=[("/etc/hostname", 0, 4)])
    file.create_dataset("kernels", data=np.array([[held.ref]], h5py.ref_dtype))


def virtual(file):
    layout = h5py.VirtualLayout((2, 2), "u1")
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", (2, 2))
    file.create_virtual_dataset("kernels", layout)


@pytest.mark.parametrize("make", [outside, soft, raw, raw_cell, virtual])
def test_hdf5_that_lies_elsewhere(make, tmp_path):
    with h5py.File(tmp_path / "k.mat", "w") as file:
        make(file)
    with pytest.raises(ValueError, match=r"k\.mat: .* (another place|another file)$"):
        data.load_kernel(str(tmp_path / "k.mat"))


def claimed(name, file):
    """Headers that claim 8 GB, in files of a few kilobytes."""
    if name == "npy":
        header = {"descr": "<f8", "fortran_order": False, "shape": (32768, 32768)}
        np.lib.format.write_array_header_1_0(file, header)
    elif name == "v5":
        written = io.BytesIO()
        scipy.io.savemat(written, {"k": KERNEL})
        dims = struct.pack("<ii", *KERNEL.shape)
        content = written.getvalue().replace(dims, struct.pack("<ii", 32768, 32768))
        file.write(content)
    else:
        with h5py.File(file, "w") as made:
            chunks = {"chunk": (8192, 8192), "chunks": (8, 8)}[name]
            made.create_dataset("k", (32768, 32768), "f8", chunks=chunks)


@pytest.mark.parametrize("name", ["npy", "v5", "chunk", "chunks"])
def test_size_is_checked_before_it_is_taken(name, tmp_path, monkeypatch):
    path = tmp_path / f"k.{'npy' if name == 'npy' else 'mat'}"
    with open(path, "wb+") as file:
        claimed(name, file)
    assert path.stat().st_size < 20_000
    with pytest.raises(ValueError, match=re.escape(str(path))):
        data.load_kernel(str(path))


def test_the_ceiling_is_settable(tmp_path, monkeypatch):
    np.save(tmp_path / "k.npy", KERNEL)
    scipy.io.savemat(tmp_path / "k.mat", {"k": KERNEL}, do_compression=True)
    v73(tmp_path / "new.mat", k=KERNEL)
    monkeypatch.setattr(limits, "KERNEL_BYTES", 100)
    for spec in (tmp_path / "k.npy", tmp_path / "k.mat", tmp_path / "new.mat", "gaussian:9,1"):
        with pytest.raises(ValueError, match="JAXDIFF_MAX_KERNEL_BYTES"):
            data.load_kernel(str(spec))
    monkeypatch.undo()
    for spec in ("gaussian:3000000000,1", "motion:100000,0"):
        with pytest.raises(ValueError, match="JAXDIFF_MAX_KERNEL_BYTES"):
            data.load_kernel(spec)


@pytest.mark.parametrize("spec", ["gaussian:4,1e-9", "gaussian:9,1e200", "motion:9,-1"])
def test_recipes_without_a_kernel(spec):
    with pytest.raises(ValueError, match="kernel: "):
        data.load_kernel(spec)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x93NUMPY", b"\x93NUMPY\1\0\x10\0{'descr': (((((\n", b"\x93NUMPY\3\0\4\0\0\0{}  "],
)
def test_damaged_npy(content, tmp_path):
    (tmp_path / "k.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"k\.npy: not readable as a \.npy file"):
        data.load_kernel(str(tmp_path / "k.npy"))


def test_real_files_are_read_as_before():
    v5 = shared("data/kernels/kernels_12.mat")
    theirs = scipy.io.loadmat(v5)["kernels"].ravel()
    for a, b in zip(data.load_kernels(v5), theirs, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("suffix", ["mat", "npy", "png"])
def test_kernel_files(suffix, tmp_path):
    kernel = data.gaussian_kernel(7, 1.5)
    path = tmp_path / f"k.{suffix}"
    if suffix == "mat":
        cells = np.empty((1, 2), object)
        cells[0, 0], cells[0, 1] = kernel, kernel.T * 2
        scipy.io.savemat(path, {"kernels": cells})
        np.testing.assert_allclose(data.load_kernel(f"{path}:1"), kernel.T * 2)
    elif suffix == "npy":
        np.save(path, kernel)
    else:
        Image.fromarray((kernel / kernel.max() * 255).round().astype(np.uint8)).save(path)
    tolerance = 1e-3 if suffix == "png" else 1e-12
    np.testing.assert_allclose(data.load_kernel(str(path)), kernel, atol=tolerance)


def test_a_mat_cut_short_anywhere(tmp_path):
    path = tmp_path / "k.mat"
    scipy.io.savemat(path, {"kernels": np.ones((9, 9)) / 81}, do_compression=True)
    content = path.read_bytes()
    for n in range(0, len(content) - 1, 7):
        path.write_bytes(content[:n])
        with pytest.raises(ValueError, match=r"not readable as a \.mat file"):
            data.load_kernels(path)


def test_motion_kernel_is_a_kernel():
    for seed in range(5):
        kernel = data.motion_kernel(15, seed)
        assert kernel.shape == (15, 15) and kernel.min() >= 0 and kernel.sum() == pytest.approx(1)
        assert (kernel > 0.01).sum() > 5
    assert not np.allclose(data.motion_kernel(15, 0), data.motion_kernel(15, 1))
