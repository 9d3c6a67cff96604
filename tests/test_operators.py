"""A contract for every operator: one row a new one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import convolve2d

import jaxdiff as jd
from jaxdiff import data
from tests.conftest import shared

RNG = np.random.default_rng(0)
OPERATORS = {
    "blur-odd": lambda: jd.operators.Blur(RNG.random((5, 7)), (16, 24)),
    "blur-even": lambda: jd.operators.Blur(RNG.random((4, 6)), (16, 24)),
    "blur-whole-image": lambda: jd.operators.Blur(RNG.random((16, 24)), (16, 24)),
    "blur-odd-width": lambda: jd.operators.Blur(RNG.random((5, 5)), (16, 23)),
    "blur-with-zeros": lambda: jd.operators.Blur(np.ones((4, 4)) / 16, (16, 24)),
}


@pytest.fixture(params=OPERATORS)
def operator(request):
    return OPERATORS[request.param]()


@pytest.fixture
def images(operator, x64):
    x = jnp.asarray(np.random.default_rng(1).standard_normal((2, *operator.shape, 3)))
    return x, jnp.asarray(np.random.default_rng(2).standard_normal(operator(x).shape))


def test_linear(operator, images):
    x, _ = images
    np.testing.assert_allclose(
        operator(x[0] + 2 * x[1]), operator(x[0]) + 2 * operator(x[1]), atol=1e-12
    )


def test_adjoint(operator, images):
    x, y = images
    np.testing.assert_allclose(
        jnp.vdot(operator(x), y), jnp.vdot(x, operator.adjoint(y)), rtol=1e-12
    )


def test_adjoint_is_the_gradient(operator, images):
    x, y = images
    gradient = jax.grad(lambda x: jnp.vdot(operator(x), y))(x)
    np.testing.assert_allclose(gradient, operator.adjoint(y), atol=1e-12)


def test_pinv(operator, images):
    """Two of Penrose's conditions; the other two are symmetries of the same diagonal."""
    x, y = images
    np.testing.assert_allclose(operator(operator.pinv(operator(x))), operator(x), atol=1e-8)
    back = operator.pinv(y)
    np.testing.assert_allclose(operator.pinv(operator(back)), back, atol=1e-6 * jnp.abs(back).max())


def test_solve_against_a_dense_matrix(operator, x64):
    h, w = operator.shape
    unit = jnp.eye(h * w).reshape(h * w, h, w, 1)
    a = np.asarray(jax.vmap(operator)(unit)).reshape(h * w, h * w).T
    residual = np.random.default_rng(3).standard_normal((h, w, 1))
    expected = a.T @ np.linalg.solve(0.7 * a @ a.T + 0.1 * np.eye(h * w), residual.ravel())
    np.testing.assert_allclose(operator.solve(residual, 0.7, 0.1).ravel(), expected, atol=1e-10)


def test_keeps_dtype_and_does_not_retrace(operator):
    traces = []

    @jax.jit
    def apply(a, x):
        traces.append(1)
        return a(x)

    x = np.zeros((*operator.shape, 3), np.float32)
    assert apply(operator, x).dtype == jnp.float32
    doubled = jax.tree.map(lambda leaf: 2 * leaf, operator)
    apply(doubled, x)
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
