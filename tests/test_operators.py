"""A contract for every operator: one row a new one."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import convolve2d

import jaxdiff as jd
from jaxdiff import data
from jaxdiff.commands.cameras import operator as named_operator
from jaxdiff.linalg.cg import conjugate_gradients
from jaxdiff.util.platform import jit
from jaxdiff.util.pytree import pytree
from tests.conftest import shared

RNG = np.random.default_rng(0)


def kernel():
    """One that conjugate gradients invert in few steps: light stays where it is, mostly."""
    kernel = RNG.random((3, 4)) / 24
    kernel[1, 2] += 1
    return kernel


def coils(count, shape):
    return RNG.standard_normal((count, *shape)) + 1j * RNG.standard_normal((count, *shape))


OPERATORS = {
    "blur-odd": lambda: jd.operators.Blur(RNG.random((5, 7)), (8, 12)),
    "blur-even": lambda: jd.operators.Blur(RNG.random((4, 6)), (8, 12)),
    "blur-whole-image": lambda: jd.operators.Blur(RNG.random((8, 12)), (8, 12)),
    "blur-odd-width": lambda: jd.operators.Blur(RNG.random((5, 5)), (8, 11)),
    "blur-with-zeros": lambda: jd.operators.Blur(np.ones((4, 4)) / 16, (8, 12)),
    "mask": lambda: jd.operators.Mask(RNG.random((8, 12)) < 0.3),
    "mask-by-channel": lambda: jd.operators.Mask(RNG.random((8, 12, 3)) < 0.6),
    "downsample-box": lambda: jd.operators.Downsample(4),
    "downsample-bicubic": lambda: jd.operators.Downsample(4, "bicubic"),
    "downsample-matlab": lambda: jd.operators.Downsample(4, "matlab"),
    "crop": lambda: jd.operators.Crop(3),
    "blur-reflect": lambda: jd.operators.Blur(kernel(), (8, 7), boundary="reflect"),
    "blur-zero": lambda: jd.operators.Blur(kernel(), (7, 8), boundary="zero"),
    "space-varying-blur": lambda: jd.operators.SpaceVaryingBlur(
        [kernel(), kernel(), np.ones((1, 1))], RNG.random((3, 8, 7)), (8, 7)
    ),
    "demosaic": lambda: jd.operators.Demosaic("GRBG"),
    "fourier": lambda: jd.operators.Fourier(RNG.random((8, 7)) < 0.5),
    "fourier-coils": lambda: jd.operators.Fourier.lines(2, (7, 8), coils=coils(3, (7, 8))),
    "radon": lambda: jd.operators.Radon([0, 20, 45, 90, 110, 133.3], (6, 5)),
    "compressed-sensing": lambda: jd.operators.CompressedSensing(3, (8, 7)),
    "inpaint": lambda: jd.operators.Inpaint([(0, 1, 3, 2), (2, 2, 4, 4)], (8, 7)),
    "outpaint": lambda: jd.operators.Outpaint((1, 2, 5, 4), (8, 7)),
    "grey": lambda: jd.operators.Grey(),
    "diagonal": lambda: jd.operators.Diagonal(RNG.uniform(0.2, 1, (8, 12, 1))),
    "diagonal-of-mask": lambda: (
        jd.operators.Diagonal(RNG.uniform(0.2, 1, (8, 12, 3)))
        @ jd.operators.Mask(np.eye(8, 12) < 1)
    ),
    "crop-of-blur": lambda: (
        jd.operators.Crop(2) @ jd.operators.Blur(RNG.random((5, 5)) / 12, (8, 12))
    ),
    "grey-of-mask": lambda: jd.operators.Grey() @ jd.operators.Mask(np.eye(8, 12) < 1),
    "downsample-of-blur": lambda: (
        jd.operators.Downsample(2) @ jd.operators.Blur(RNG.random((4, 4)) / 8, (8, 12))
    ),
    "by-transpose-alone": lambda: Differences(np.float64(0.7)),
}


@pytree
class Differences(jd.operators.Linear):
    """What a user writes: a call, and the rest comes from `Linear`."""

    weight: Any
    shape = (8, 12)

    def __call__(self, x):
        return x[..., 1:, :, :] - jnp.asarray(self.weight, x.dtype) * x[..., :-1, :, :]


def shape_of(operator):
    return (*(operator.shape or (8, 12)), 3)


forward = jit(lambda operator, x: operator(x))
adjoint = jit(lambda operator, y: operator.adjoint(y))
gradient = jit(lambda operator, x, y: jax.grad(lambda x: jnp.vdot(operator(x), y))(x))
pinv = jit(lambda operator, y: operator.pinv(y))
solve = jit(lambda operator, *args: (operator.solve(*args), operator.solve_with_report(*args)))
matrix_columns = jit(lambda operator, unit: jax.vmap(operator)(unit))


@pytest.fixture(params=OPERATORS)
def operator(request):
    return OPERATORS[request.param]()


@pytest.fixture
def images(operator, x64):
    x = jnp.asarray(np.random.default_rng(1).standard_normal((2, *shape_of(operator))))
    return x, jnp.asarray(np.random.default_rng(2).standard_normal(forward(operator, x).shape))


def test_linear(operator, images):
    x, _ = images
    ax = forward(operator, x)
    both = forward(operator, jnp.stack([x[0] + 2 * x[1], x[0]]))
    np.testing.assert_allclose(both[0], ax[0] + 2 * ax[1], atol=1e-12)


def test_adjoint_is_exact_and_the_gradient(operator, images):
    x, y = images
    back = adjoint(operator, y)
    np.testing.assert_allclose(jnp.vdot(forward(operator, x), y), jnp.vdot(x, back), rtol=1e-12)
    np.testing.assert_allclose(gradient(operator, x, y), back, atol=1e-12)


def matrix_of(operator):
    """[measurement, image], of the whole image with its colours."""
    shape = shape_of(operator)
    unit = jnp.eye(int(np.prod(shape))).reshape(-1, *shape)
    return np.asarray(matrix_columns(operator, unit)).reshape(len(unit), -1).T


def test_pinv(operator, images):
    """Two of Penrose's conditions; the other two are symmetries of the same diagonal."""
    x, y = images
    ax = forward(operator, x)
    found = jnp.stack([pinv(operator, one) for one in (ax[0], y[0])])
    again = forward(operator, found)
    np.testing.assert_allclose(again[0], ax[0], atol=1e-8)
    back = pinv(operator, again[1])
    np.testing.assert_allclose(back, found[1], atol=1e-6 * jnp.abs(back).max())


def test_project(operator, images):
    """Leaves a measurement alone, and takes away what no image can produce: Aᵀ does not see it."""
    x, y = images
    ax, projected = forward(operator, x), operator.project(y)
    np.testing.assert_allclose(operator.project(ax), ax, atol=1e-12)
    np.testing.assert_allclose(operator.project(projected), projected, atol=1e-12)
    np.testing.assert_allclose(adjoint(operator, projected), adjoint(operator, y), atol=1e-12)
    if isinstance(operator, jd.operators.Mask):
        known = forward(operator, jnp.stack([pinv(operator, one) for one in y]))
        np.testing.assert_allclose(projected, known, atol=1e-12)


def test_solve_against_a_dense_matrix(operator, x64):
    a = matrix_of(operator)
    shape = jax.eval_shape(operator, jax.ShapeDtypeStruct(shape_of(operator), float)).shape
    residual = np.random.default_rng(3).standard_normal(shape)
    inner = 0.7 * a @ a.T + 0.1 * np.eye(len(a))
    expected = a.T @ np.linalg.solve(inner, residual.ravel())
    found, (reported, report) = solve(operator, residual, 0.7, 0.1)
    np.testing.assert_allclose(found.ravel(), expected, atol=1e-9)
    np.testing.assert_array_equal(reported, found)
    assert report.get("cg_converged", True)


def test_input_shape(operator):
    shape = shape_of(operator)
    out = jax.eval_shape(operator, jax.ShapeDtypeStruct(shape, jnp.float32)).shape
    assert operator.input_shape(out) == shape


def test_keeps_dtype_and_does_not_retrace(operator):
    traces = []

    @jax.jit
    def apply(a, x):
        traces.append(1)
        return a(x)

    x = np.zeros((2, *shape_of(operator)), np.float32)
    assert jax.eval_shape(apply, operator, x).dtype == jnp.float32
    jax.eval_shape(apply, jax.tree.map(lambda leaf: 2 * leaf, operator), x)
    assert len(traces) == 1


@pytest.mark.parametrize("size", [(3, 3), (4, 4), (5, 2), (1, 1)])
def test_blur_is_a_convolution_rolled_by_half_the_size(size, x64):
    """Not a correlation; the centre of a kernel of even size is its pixel ⌊size/2⌋."""
    kernel = np.random.default_rng(0).random(size)
    x = np.random.default_rng(1).random((12, 10))
    top, left = size[0] // 2, size[1] // 2
    full = convolve2d(np.pad(x, ((12, 12), (10, 10)), mode="wrap"), kernel)
    expected = full[12 + top : 24 + top, 10 + left : 20 + left]
    np.testing.assert_allclose(
        jd.operators.Blur(kernel, (12, 10))(x[..., None])[..., 0], expected, atol=1e-12
    )


def test_blur_normalises_only_when_asked():
    kernel = np.full((3, 3), 2.0)
    assert float(jd.operators.Blur(kernel, (8, 8)).kernel.sum()) == 18
    assert float(jd.operators.Blur(kernel, (8, 8), normalize=True).kernel.sum()) == pytest.approx(1)


def test_kernels_of_other_sizes_do_not_recompile():
    a, b = (jd.operators.Blur(np.ones((s, s)), (16, 16)) for s in (3, 8))
    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert [np.shape(x) for x in jax.tree.leaves(a)] == [np.shape(x) for x in jax.tree.leaves(b)]


@pytest.mark.parametrize(
    "kernel, message",
    [
        (np.ones((9, 3)), "larger than the image"),
        (np.array([[1.0, np.nan]]), "NaN"),
        (np.ones(3), r"\[h, w\]"),
        (np.ones((2, 2), complex), "real"),
    ],
)
def test_bad_kernels(kernel, message):
    with pytest.raises(ValueError, match=message):
        jd.operators.Blur(kernel, (8, 8))
    with pytest.raises(ValueError, match="sum"):
        jd.operators.Blur(np.zeros((3, 3)), (8, 8), normalize=True)


def test_real_kernels():
    v5 = data.load_kernel(str(shared("data/kernels/kernels_12.mat")))
    v73 = data.load_kernel(str(shared("data/kernels/Levin09.mat")) + ":7")
    assert v5.shape == (25, 25) and v5.sum() == pytest.approx(1, abs=1e-3)
    assert v73.ndim == 2 and 13 <= min(v73.shape) and v73.sum() == pytest.approx(1, abs=1e-3)
    with pytest.raises(ValueError, match="holds 8 kernels"):
        data.load_kernel(str(shared("data/kernels/Levin09.mat")) + ":8")


def test_downsample_bicubic_is_an_image_resize(x64):
    x = np.random.default_rng(0).random((16, 24, 3))
    expected = jax.image.resize(x, (4, 6, 3), "cubic", antialias=True)
    np.testing.assert_allclose(jd.operators.Downsample(4, "bicubic")(x), expected, atol=1e-6)


def test_downsample_box_is_the_mean_of_blocks(x64):
    x = np.random.default_rng(0).random((16, 24, 3))
    expected = x.reshape(4, 4, 6, 4, 3).mean((1, 3))
    np.testing.assert_allclose(jd.operators.Downsample(4)(x), expected, atol=1e-12)


def test_cropped_blur_is_a_blur_that_is_not_circular(x64):
    kernel = np.random.default_rng(0).random((5, 5))
    x = np.random.default_rng(1).random((16, 16, 1))
    camera = jd.operators.Crop(2) @ jd.operators.Blur(kernel, (16, 16))
    expected = convolve2d(x[..., 0], kernel, mode="valid")
    np.testing.assert_allclose(camera(x)[..., 0], expected, atol=1e-12)


def test_conjugate_gradients_say_when_they_fail():
    diagonal = np.logspace(-12, 0, 200).astype("f")
    _, report = conjugate_gradients(lambda u: diagonal * u, jnp.ones(200, "float32"), max_steps=5)
    assert not report["cg_converged"] and report["cg_iterations"] == 5
    assert report["cg_residual"] > 1e-2
    zero, report = conjugate_gradients(lambda u: 2 * u, jnp.zeros(3))
    assert report["cg_converged"] and not zero.any()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: jd.operators.Mask(np.ones((4, 4)) / 2), "1 where a pixel is known"),
        (lambda: jd.operators.Mask(np.zeros((4, 4))), "hides every pixel"),
        (lambda: jd.operators.Mask(np.ones(4)), r"\[H, W\]"),
        (lambda: jd.operators.Mask(np.ones((4, 4)))(np.ones((5, 4, 3))), "as the mask"),
        (lambda: jd.operators.Downsample(0), "factor"),
        (lambda: jd.operators.Downsample(2, "lanczos"), "method"),
        (lambda: jd.operators.Downsample(3)(np.ones((4, 6, 3))), "divides"),
        (lambda: jd.operators.Crop(-1), "margin"),
        (lambda: jd.operators.Crop(2)(np.ones((4, 6, 3))), "leaves nothing"),
        (lambda: jd.operators.Grey((np.nan, 1, 1)), "weights"),
        (lambda: jd.operators.Grey()(np.ones((4, 4, 1))), "3 channels"),
        (lambda: named_operator("lens:3", (8, 8)), "expected one of blur, "),
        (lambda: named_operator("downsample:x", (8, 8)), "expected downsample:FACTOR"),
        (lambda: named_operator("mask:1.5", (8, 8)), "between 0 and 1"),
        (lambda: named_operator("blur:gaussian:99,2", (8, 8)), "larger than the image"),
    ],
)
def test_bad_operators(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_recipes(tmp_path):
    x = np.random.default_rng(0).random((16, 16, 3)).astype("f")
    for recipe, shape in (
        ("blur:motion:5,0", (16, 16, 3)),
        ("mask:0.3,7", (16, 16, 3)),
        ("downsample:4,bicubic", (4, 4, 3)),
        ("grey@crop:3@blur:gaussian:5,1", (10, 10, 1)),
    ):
        assert named_operator(recipe, (16, 16))(x).shape == shape
    known = np.random.default_rng(0).random((16, 16)) < 0.5
    data.write_image(tmp_path / "mask.png", known[..., None])
    mask = named_operator(f"mask:{tmp_path}/mask.png", (16, 16))
    np.testing.assert_array_equal(mask.mask[..., 0], known)
    with pytest.raises(FileNotFoundError):
        named_operator(f"mask:{tmp_path}/other.png", (16, 16))
    with pytest.raises(TypeError, match="two operators"):
        jd.operators.Grey() @ np.ones(3)
