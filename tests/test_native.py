"""The kernels in C against XLA's, and what happens where they can't be built."""

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
from jaxdiff.nn.layers import GroupNorm, conv2d

# Not `available()`: where there is a compiler, a library that fails to build is a failure.
COMPILER = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
pytestmark = pytest.mark.skipif(
    jax.default_backend() != "cpu" or COMPILER is None,
    reason="jaxdiff.nn.native needs a CPU backend and a C compiler",
)


@pytest.fixture(scope="module", autouse=True)
def built():
    assert native.available(), native.build(Path(user_cache_dir("jaxdiff")))


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


def test_an_image_does_not_depend_on_those_beside_it():
    x, kernel, bias, stride, padding = of("many bands")
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
