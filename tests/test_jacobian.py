"""Conditioning with the network's own covariance: right where the table is wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiff as jd
from jaxdiff.linalg.fields import Stationary
from jaxdiff.samplers import Draws, jacobian
from jaxdiff.util.pytree import pytree

SCHEDULE = jd.Schedule.from_config()
SIZE = 8
F = np.fft.fftfreq(SIZE)
PRIOR = jd.priors.Gaussian(0.3 / (1 + 100 * (F[:, None] ** 2 + F[None] ** 2)), SCHEDULE)
OPERATORS = {
    "blur": jd.operators.Blur(np.ones((3, 3)) / 9, (SIZE, SIZE)),
    "mask": jd.operators.Mask(np.arange(SIZE**2).reshape(SIZE, SIZE) % 3 > 0),
}


@pytree
class Table:
    """The prior's own covariance, wrong by 1 + error·cos(6r) at radius r."""

    error: float
    stationary = True

    def at(self, x_t, at, x0_hat=None):
        exact = PRIOR.covariance.at(x_t, at).matrices
        radius = np.hypot(F[:, None], np.fft.rfftfreq(SIZE))[..., None, None]
        return Stationary(exact * (1 + self.error * jnp.cos(6 * radius)))

    def check(self, denoiser):
        pass


def conditioned_mean(operator, covariance, t, with_jacobian):
    """Of x₀ given x_t and y: x_{t−1} without noise, less what x_t adds."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, SIZE, SIZE, 1))
    y = np.asarray(operator.project(operator(0.5 + 0.1 * y)))
    sampler = jd.SpectralPosterior(PRIOR, operator, y, 0.1, covariance, False, with_jacobian)
    steps = SCHEDULE.steps(1000)
    c = jax.tree.map(lambda a: a[999 - t], steps)
    assert c.t == t
    moved, _ = jax.jit(type(sampler).step)(sampler, jnp.asarray(x), c, Draws(jnp.zeros_like(x)))
    return (np.asarray(moved) - c.xt_coef * x) / c.x0_coef


@pytest.mark.parametrize("kind", OPERATORS)
def test_an_error_of_the_table_counts_squared(kind, x64):
    operator = OPERATORS[kind]
    exact = conditioned_mean(operator, PRIOR.covariance, 200, False)

    def distance(error, with_jacobian):
        return np.abs(conditioned_mean(operator, Table(error), 200, with_jacobian) - exact).max()

    plain, mended = [[distance(e, with_it) for e in (0.2, 0.1)] for with_it in (False, True)]
    print(f"{kind}: table {plain[0]:.1e}, {plain[1]:.1e}, with S {mended[0]:.1e}, {mended[1]:.1e}")
    assert plain[0] / plain[1] == pytest.approx(2, rel=0.15)
    assert mended[0] / mended[1] == pytest.approx(4, rel=0.15)
    assert mended[0] < plain[0] / 10


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
    _, info = sampler.step(jnp.asarray(x), c, Draws(jnp.zeros_like(x)))
    assert bool(info["cg_converged"])
    monkeypatch.setattr(jd.samplers.system, "TOLERANCE", 1e-30)
    _, info = sampler.step(jnp.asarray(x), c, Draws(jnp.zeros_like(x)))
    assert not bool(info["cg_converged"])


def test_only_between_its_two_levels(x64):
    a = SCHEDULE.alphas_cumprod
    noisy, clean = int((a > jacobian.FROM).sum()), int((a >= jacobian.TO).sum())
    for level, changed in ((noisy, False), (noisy - 1, True), (clean, True), (clean - 1, False)):
        given = (OPERATORS["blur"], Table(0.5), level)
        same = np.array_equal(conditioned_mean(*given, True), conditioned_mean(*given, False))
        assert same is not changed
