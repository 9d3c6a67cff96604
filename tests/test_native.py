"""The kernels in C against XLA's, and what happens where they can't be built."""

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from platformdirs import user_cache_dir

from jaxdiff.nn import native
from jaxdiff.nn.convolve import norms_natively
from jaxdiff.nn.layers import conv2d
from jaxdiff.nn.norm import GroupNorm

# Not `available()`: where there is a compiler, a library that fails to build is a failure.
COMPILER = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
pytestmark = pytest.mark.skipif(
    jax.default_backend() != "cpu" or COMPILER is None,
    reason="jaxdiff.nn.native needs a CPU backend and a C compiler",
)


@pytest.fixture(scope="module", autouse=True)
def built():
    assert native.available(), native.build(Path(user_cache_dir("jaxdiff")) / "native")


# n, (H, W), channels in and out, (h, w), stride, padding: whole vectors and not, every border
CONVOLUTIONS = {
    "of 3 channels": (2, (9, 7), 3, 32, (3, 3), 1, ((1, 1), (1, 1))),
    "to 3 channels": (1, (16, 16), 32, 3, (3, 3), 1, ((1, 1), (1, 1))),
    "odd channels": (2, (8, 20), 5, 37, (3, 3), 1, ((1, 1), (1, 1))),
    "strided": (3, (8, 8), 16, 48, (3, 3), 2, ((0, 1), (0, 1))),
    "strided, symmetric": (1, (8, 12), 8, 16, (3, 3), 2, ((1, 1), (1, 1))),
    "a phase": (2, (6, 6), 16, 16, (2, 2), 1, ((0, 1), (1, 0))),
    "1 × 1": (2, (6, 5), 20, 64, (1, 1), 1, ((0, 0), (0, 0))),
    "one pixel": (1, (1, 1), 4, 4, (3, 3), 1, ((1, 1), (1, 1))),
    "many bands": (1, (65, 33), 96, 80, (3, 3), 1, ((1, 1), (1, 1))),
    "few tiles": (1, (20, 14), 48, 48, (3, 3), 1, ((1, 1), (0, 2))),
    "5 × 3": (1, (12, 11), 4, 20, (5, 3), 1, ((2, 2), (1, 1))),
}


def of(name):
    n, size, channels_in, channels_out, taps, stride, padding = CONVOLUTIONS[name]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, *size, channels_in)).astype("f")
    kernel = rng.standard_normal((*taps, channels_in, channels_out)).astype("f")
    return x, kernel, rng.standard_normal(channels_out).astype("f"), stride, padding


def by_xla(x, kernel, bias, stride, padding):
    with jax.enable_x64(True):
        dimensions = ("NHWC", "HWIO", "NHWC")
        x, kernel, bias = (jnp.asarray(np.asarray(a), jnp.float64) for a in (x, kernel, bias))
        strides = (stride, stride)

        def convolve(x, kernel, bias):
            y = lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=dimensions)
            return y + bias

        y, pullback = jax.vjp(convolve, x, kernel, bias)
        weight = np.random.default_rng(1).standard_normal(y.shape).astype("f")
        return y, pullback(jnp.asarray(weight, jnp.float64)), weight


def close(ours, theirs):
    scale = max(float(np.abs(theirs).max()), 1e-3)
    np.testing.assert_allclose(np.asarray(ours) / scale, np.asarray(theirs) / scale, atol=2e-6)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution_and_its_gradients(name):
    x, kernel, bias, stride, padding = of(name)
    expected, gradients, weight = by_xla(x, kernel, bias, stride, padding)
    close(native.convolve(x, kernel, bias, stride, padding), expected)
    found = native.convolve_gradient(x, weight, kernel.shape, stride, padding)
    for ours, theirs in zip(found, gradients[1:]):
        close(ours, theirs)


def test_a_convolution_in_a_network_is_the_native_one():
    x, kernel, bias, stride, padding = of("strided")
    _, gradients, weight = by_xla(x, kernel, bias, stride, padding)
    compiled = jax.jit(lambda *a: jax.vjp(lambda *b: conv2d(*b, stride, padding), *a)[1](weight))
    assert "jaxdiff_conv" in compiled.lower(x, kernel, bias).as_text()
    for ours, theirs in zip(compiled(x, kernel, bias), gradients):
        close(ours, theirs)


def twice(function, *arrays):
    """The gradient of a gradient, in float32 and in float64."""

    def inner(*arrays):
        return jnp.sin(function(*arrays)).sum()

    def outer(*arrays):
        return sum((g**2).sum() for g in jax.grad(inner, tuple(range(len(arrays))))(*arrays))

    second = jax.grad(outer, tuple(range(len(arrays))))
    ours = [np.asarray(g) for g in second(*map(jnp.asarray, arrays))]
    with jax.enable_x64(True):
        lifted = [jnp.asarray(np.asarray(a), jnp.float64) for a in arrays]
        return ours, [np.asarray(g) for g in second(*lifted)]


@pytest.mark.parametrize("name", ["strided", "norm", "norm with silu"])
def test_a_gradient_through_a_gradient(name):
    """As that of a guided sampler is: by XLA, and the same."""
    if name == "strided":
        x, kernel, bias, stride, padding = of(name)
        found = twice(lambda x, k, b: conv2d(x, k, b, stride, padding), x[:1] / 8, kernel, bias)
    else:
        act = jax.nn.silu if "silu" in name else None
        norm = GroupNorm(16, 4, 1e-6)
        found = twice(lambda x: norm(x, act), np.random.default_rng(0).random((2, 4, 4, 16), "f"))
    for a, b in zip(*found):
        np.testing.assert_allclose(a, b, atol=2e-4 * np.abs(b).max())


@pytest.mark.parametrize("empty", ["images", "rows", "channels in", "channels out"])
@pytest.mark.parametrize("channels", [5, 32])
def test_nothing_to_sum(empty, channels):
    shape, kernel_shape = [2, 16, 16, channels], [3, 3, channels, channels]
    if empty == "images":
        shape[0] = 0
    elif empty == "rows":
        shape[1] = 0
    else:
        kernel_shape[2 if empty == "channels in" else 3] = 0
        shape[3] = kernel_shape[2]
    x, kernel = np.zeros(shape, "f"), np.ones(kernel_shape, "f")
    bias = np.arange(kernel_shape[3], dtype="f")
    padding = ((1, 1), (1, 1))
    full = native.convolve(
        np.ones((2, 16, 16, 32), "f"), np.ones((3, 3, 32, 32), "f"), np.ones(32, "f"), 1, padding
    )
    # And the memory of a thread is not zero now.
    assert float(full[0, 8, 8, 0]) == pytest.approx(289, rel=1e-6)
    expected, gradients, weight = by_xla(x, kernel, bias, 1, padding)
    y, pullback = jax.vjp(lambda *a: conv2d(*a, 1, padding), x, kernel, bias)
    close_or_empty(y, expected)
    for ours, theirs in zip(pullback(jnp.asarray(weight)), gradients):
        close_or_empty(ours, theirs)
    for ours, theirs in zip(
        native.convolve_gradient(x, weight, kernel.shape, 1, padding), gradients[1:]
    ):
        close_or_empty(ours, theirs)


def close_or_empty(ours, theirs):
    assert ours.shape == theirs.shape
    if ours.size:
        close(ours, theirs)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 3e38, -3e38])
def test_what_is_not_finite_stays_where_xla_has_it(value):
    """Winograd's sums of neighbours would spread an infinity, and overflow where no sum of ours does."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 17, 16, 32)).astype("f")
    kernel = (0.01 * rng.standard_normal((3, 3, 32, 32))).astype("f")
    bias, padding = np.zeros(32, "f"), ((1, 1), (1, 1))
    plain = native.convolve(x, kernel, bias, 1, padding)
    broken = x.copy()
    broken[1, 4:6, 5, 3] = value
    y = np.asarray(native.convolve(broken, kernel, bias, 1, padding))
    np.testing.assert_array_equal(y[0], plain[0])  # the image beside it
    dimensions = ("NHWC", "HWIO", "NHWC")

    def by_xla(x, kernel):
        return lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=dimensions)

    expected, pullback = jax.vjp(by_xla, jnp.asarray(broken), jnp.asarray(kernel))
    np.testing.assert_array_equal(np.isfinite(y), np.isfinite(expected))
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    g = rng.standard_normal(y.shape).astype("f") * np.float32(0.01)
    found, _ = native.convolve_gradient(broken, g, kernel.shape, 1, padding)
    np.testing.assert_allclose(found, pullback(jnp.asarray(g))[1], rtol=1e-3, atol=1e-4)


# Of three images the tiles are not few any more, and a wide kernel is transformed in narrower pieces.
@pytest.mark.parametrize("name, wider", [("many bands", 1), ("few tiles", 1), ("few tiles", 4)])
def test_an_image_does_not_depend_on_those_beside_it(name, wider):
    x, kernel, bias, stride, padding = of(name)
    x, kernel = np.tile(x, wider), np.tile(kernel, (1, 1, wider, 1))
    x = np.concatenate([x, 2 * x, -x])
    together = native.convolve(x, kernel, bias, stride, padding)
    mapped = jax.vmap(lambda x: native.convolve(x[None], kernel, bias, stride, padding)[0])(x)
    np.testing.assert_array_equal(together, mapped)
    for one, image in zip(together, x):
        np.testing.assert_array_equal(
            one, native.convolve(image[None], kernel, bias, stride, padding)[0]
        )


@pytest.mark.parametrize("act", [None, jax.nn.silu, jax.nn.relu])
@pytest.mark.parametrize("shape", [(2, 8, 8, 16), (3, 5, 20, 48), (1, 64, 64, 32)])
def test_group_normalisation_and_its_gradient(shape, act):
    rng = np.random.default_rng(0)
    norm = GroupNorm(shape[-1], shape[-1] // 4, 1e-6)
    x = (30 + 3 * rng.standard_normal(shape)).astype("f")  # far from 0: digits are lost
    norm.scale[...] = rng.standard_normal(shape[-1]).astype("f")
    norm.bias[...] = rng.standard_normal(shape[-1]).astype("f")
    weight = rng.standard_normal(shape).astype("f")

    def both(norm, x, weight):
        y, pullback = jax.vjp(lambda norm, x: norm(x, act), norm, x)
        return [np.asarray(a) for a in (y, *jax.tree.leaves(pullback(weight)))]

    assert norms_natively(jnp.asarray(x))
    ours = both(norm, x, weight)
    with jax.enable_x64(True):
        lifted = jax.tree.map(lambda a: jnp.asarray(np.asarray(a), jnp.float64), (norm, x, weight))
        expected = both(*lifted)
    for a, b in zip(ours, expected):
        scale = np.abs(b).max()
        np.testing.assert_allclose(a / scale, b / scale, atol=1e-5)


def test_silu_at_its_ends():
    x = np.zeros((1, 2, 16), "f")
    x[0, 0], x[0, 1] = -1, 1
    for scale in (1e-3, 1, 50, 1e3, 1e30):
        given = (x, np.full(16, scale, "f"), np.zeros(16, "f"))
        y, _ = native.group_norm(*given, 1, 0.0, True)
        close(y, jax.nn.silu(x * np.float32(scale)))
    assert np.isnan(native.group_norm(x * np.nan, x[0, 1], x[0, 1], 1, 1e-6, True)[0]).all()


def test_without_a_compiler_xla_does_it(tmp_path):
    code = """
import jax, numpy as np, jaxdiff as jd
from jaxdiff.nn import native
unet, _ = jd.load("faces64")
x = np.linspace(-1, 1, 12288, dtype="f").reshape(1, 64, 64, 3)
np.save("out.npy", jax.jit(jd.UNet2D.__call__)(unet, x, 500))
print(native.available())
"""
    outputs = {}
    for answer, setting in {
        "True": {},
        "False": {"CC": "no-such-compiler", "PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)},
    }.items():
        run = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | setting,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert run.stdout.strip() == answer, run.stderr
        outputs[answer] = np.load(tmp_path / "out.npy")
    close(outputs["True"], outputs["False"])


def test_what_the_compiler_says_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(native, "SOURCES", [*native.SOURCES[:-1], tmp_path / "broken.c"])
    (tmp_path / "broken.c").write_text("int f( {")
    with pytest.raises(OSError, match=r"broken\.c"):
        native.build(tmp_path / "built")
    assert not any((tmp_path / "built").iterdir())


def compiler(path: Path, script: str) -> str:
    path.write_bytes(b"#!/bin/sh\n" + script.encode("latin-1"))
    path.chmod(0o755)
    return str(path)


def test_a_compiler_that_says_what_is_no_utf8(tmp_path, monkeypatch):
    monkeypatch.setenv("CC", compiler(tmp_path / "cc", "printf 'caf\xe9: no' >&2; exit 1"))
    with pytest.raises(OSError, match="caf\ufffd: no"):
        native.build(tmp_path / "built")


def test_a_compiler_that_does_not_end(tmp_path, monkeypatch):
    monkeypatch.setenv("CC", compiler(tmp_path / "cc", "exec sleep 60"))
    monkeypatch.setattr(native, "_PATIENCE", 0.2)
    with pytest.raises(OSError, match=r"not done after 0\.2 seconds"):
        native.build(tmp_path / "built")


def test_a_compiler_that_fails_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setenv("CC", compiler(tmp_path / "cc", "exit 1"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.warns(UserWarning, match="XLA's own convolutions"):
        assert not native.available.__wrapped__()


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A library that is built in no time."""
    (tmp_path / "quick.c").write_text("int answer(void) { return 42; }")
    monkeypatch.setattr(native, "SOURCES", [tmp_path / "quick.c"])
    return native.build(tmp_path / "cache" / "native")


@pytest.mark.parametrize("fault", ["empty", "cut short", "foreign", "a link", "writable"])
def test_an_unusable_library_is_built_again(fault, library, tmp_path):
    content, folder = library.read_bytes(), tmp_path / "native"
    folder.mkdir(mode=0o700)
    path = folder / library.name
    if fault == "a link":
        path.symlink_to(library)
    else:
        cut = {"empty": 0, "cut short": len(content) // 2}.get(fault)
        path.write_bytes(b"#!foreign" if fault == "foreign" else content[:cut])
        path.chmod(0o666 if fault == "writable" else 0o600)
    built = native.build(folder)
    assert built.is_file() and not built.is_symlink()
    assert built.stat().st_mode & 0o022 == 0
    assert ctypes.CDLL(str(built)).answer() == 42
    inode = built.stat().st_ino
    assert native.build(folder).stat().st_ino == inode  # and found the next time


def test_a_library_of_another_user_is_built_again(library, monkeypatch):
    before = library.stat().st_ino
    other = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: other)
    assert native.build(library.parent).stat().st_ino != before


def test_a_folder_that_others_may_write_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(jax.ffi, "register_ffi_target", lambda *args, **kwargs: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "jaxdiff" / "native"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    assert native.available.__wrapped__()
    assert not any(folder.iterdir())
    folder.rmdir()
    assert native.available.__wrapped__()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(list(folder.iterdir())) == 1
