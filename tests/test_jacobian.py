"""Conditioning with the network's own covariance: right where the table is wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiff as jd
from jaxdiff.samplers import jacobian

pytestmark = pytest.mark.usefixtures("hurried")

SCHEDULE = jd.Schedule.from_config()
SIZE = 8
F = np.fft.fftfreq(SIZE)
PRIOR = jd.priors.Gaussian(0.3 / (1 + 100 * (F[:, None] ** 2 + F[None] ** 2)), SCHEDULE)
OPERATORS = {
    "blur": jd.operators.Blur(np.ones((3, 3)) / 9, (SIZE, SIZE)),
    "mask": jd.operators.Mask(np.arange(SIZE**2).reshape(SIZE, SIZE) % 3 > 0),
}


def table(factor):
    """The exact covariance of the prior's one channel, times a factor of frequency."""
    levels = np.arange(0, 1000, 9)
    a = SCHEDULE.alphas_cumprod[levels]
    rings = np.arange(SIZE) / SIZE
    s = 0.3 / (1 + 100 * rings**2)
    values = s / (a[:, None] * s + 1 - a[:, None]) * factor(rings)
    return jd.SpectralCovariance(values[..., None, None], levels, a, 1 / SIZE)


def conditioned_mean(operator, covariance, t, with_jacobian):
    """Of x₀ given x_t and y: x_{t−1} without noise, less what x_t adds."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, SIZE, SIZE, 1))
    y = np.asarray(operator.project(operator(0.5 + 0.1 * y)))
    sampler = jd.SpectralPosterior(PRIOR, operator, y, 0.1, covariance, False, with_jacobian)
    steps = SCHEDULE.steps(1000)
    c = jax.tree.map(lambda a: a[999 - t], steps)
    assert c.t == t
    moved, _ = jax.jit(type(sampler).step)(sampler, jnp.asarray(x), c, jnp.zeros_like(x))
    return (np.asarray(moved) - c.xt_coef * x) / c.x0_coef


@pytest.mark.parametrize("kind", OPERATORS)
def test_it_mends_a_wrong_table(kind, x64):
    operator = OPERATORS[kind]
    exact = conditioned_mean(operator, PRIOR.covariance, 200, False)
    wrong = table(lambda r: 0.3 + r)
    plain = np.abs(conditioned_mean(operator, wrong, 200, False) - exact).max()
    mended = np.abs(conditioned_mean(operator, wrong, 200, True) - exact).max()
    print(f"{kind}: {plain:.1e}, {mended:.1e}")
    assert mended < plain / 2.5


@pytest.mark.parametrize("kind", OPERATORS)
def test_it_leaves_a_right_one(kind, x64):
    operator = OPERATORS[kind]
    given = (operator, PRIOR.covariance, 200)
    np.testing.assert_allclose(
        conditioned_mean(*given, True), conditioned_mean(*given, False), atol=1e-8
    )


@pytest.mark.parametrize("kind", OPERATORS)
def test_a_solve_that_does_not_converge_is_reported(kind, monkeypatch):
    operator = OPERATORS[kind]
    y = np.asarray(operator.project(operator(np.full((SIZE, SIZE, 1), 0.6, "f"))))
    sampler = jd.SpectralPosterior(PRIOR, operator, y, 0.1, PRIOR.covariance, False, True)
    c = jax.tree.map(lambda a: a[999 - 200], SCHEDULE.steps(1000).astype("float32"))
    x = 0.3 * np.random.default_rng(0).standard_normal(y.shape).astype("f")
    _, info = sampler.step(jnp.asarray(x), c, jnp.zeros_like(x))
    assert bool(info["cg_converged"])
    monkeypatch.setattr(jd.samplers.spectral, "TOLERANCE", 1e-30)
    _, info = sampler.step(jnp.asarray(x), c, jnp.zeros_like(x))
    assert not bool(info["cg_converged"])


def test_not_where_there_is_mostly_noise(x64):
    t = int((SCHEDULE.alphas_cumprod > jacobian.FROM).sum())  # the first below
    for level, changed in ((t, False), (t - 1, True)):
        given = (OPERATORS["blur"], table(lambda r: 0.3 + r), level)
        same = np.array_equal(conditioned_mean(*given, True), conditioned_mean(*given, False))
        assert same is not changed
