"""A contract for every noise: one row a new one."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

import jaxdiff as jd
from jaxdiff.noise import Gaussian, Laplace, Poisson, PoissonGaussian, Quantised
from jaxdiff.observation import Observation
from tests.test_samplers import KEY, KNOWN, LINEAR_ONLY, RESTORING, SCHEDULE, make

SHAPE = (3, 4, 2)
MEAN = np.random.default_rng(0).uniform(0.02, 1, SHAPE)
DEVIATION = np.random.default_rng(1).uniform(0.05, 0.3, (3, 4, 1))
COUNT = 10_000  # of draws


def poisson_gaussian(y, mean, peak=30, sigma=0.05):
    """The sum over all counts."""
    k = np.arange(100 + int(1.5 * peak)).reshape(-1, *np.ones(np.ndim(mean), int))
    return logsumexp(
        stats.poisson.logpmf(k, peak * mean) + stats.norm.logpdf(y, k / peak, sigma), 0
    )


def quantised(y, mean, levels=12, sigma=0.06):
    d, half = -np.abs(y - mean), 0.5 / (levels - 1)
    upper, lower = (stats.norm.logcdf(d + s * half, scale=sigma) for s in (1, -1))
    return upper + np.log1p(-np.exp(lower - upper))


# noise, log p(y | mean) by pixel, variance by mean.
NOISES = {
    "gaussian": (
        Gaussian(0.2),
        lambda y, m: stats.norm.logpdf(y, m, 0.2),
        lambda m: 0.04 + 0 * m,
    ),
    "gaussian-per-pixel": (
        Gaussian(DEVIATION),
        lambda y, m: stats.norm.logpdf(y, m, DEVIATION),
        lambda m: DEVIATION**2 + 0 * m,
    ),
    "laplace": (
        Laplace(0.1),
        lambda y, m: stats.laplace.logpdf(y, m, 0.1),
        lambda m: 0.02 + 0 * m,
    ),
    "poisson": (
        Poisson(100),
        lambda y, m: stats.poisson.logpmf(np.round(100 * y), 100 * m),
        lambda m: m / 100,
    ),
    "poisson-gaussian": (PoissonGaussian(30, 0.05), poisson_gaussian, lambda m: m / 30 + 0.0025),
    "quantised": (Quantised(12, 0.06), quantised, lambda m: 0.0036 + 1 / 11**2 / 12 + 0 * m),
}


@pytest.fixture(params=NOISES)
def row(request, x64):
    return NOISES[request.param]


@jax.jit
def score(noise, y, mean):
    """log p(y | mean), and its derivative."""
    return jax.value_and_grad(noise.log_prob, 1)(y, mean)


@functools.cache
def draws(name):
    """[COUNT, *SHAPE], of the mean MEAN."""
    with jax.enable_x64(True):
        return np.asarray(NOISES[name][0].draw(KEY, jnp.broadcast_to(MEAN, (COUNT, *SHAPE))))


@pytest.mark.parametrize("name", NOISES)
def test_log_prob_is_scipys_and_the_score_its_derivative(name, x64):
    """At what was drawn, at means far from it, and finite where there is no light."""
    noise, expected, _ = NOISES[name]
    y = draws(name)[0]
    for mean in (MEAN, MEAN[::-1], np.full(SHAPE, 0.5)):
        found, _ = score(noise, y, mean)
        np.testing.assert_allclose(found, expected(y, mean).sum(), rtol=1e-10)
        step = 1e-6 * np.random.default_rng(5).standard_normal(SHAPE)
        (up, slope), (down, _) = (score(noise, y, mean + s) for s in (step, -step))
        np.testing.assert_allclose(2 * jnp.vdot(slope, step), up - down, rtol=1e-3)
    for mean in (0.0, -0.5):
        dark = score(noise, y, np.full(SHAPE, mean))
        assert all(np.isfinite(a).all() for a in dark)


@pytest.mark.parametrize("name", NOISES)
def test_draws_have_its_mean_and_variance_and_residuals_one_deviation(name, x64):
    noise, _, variance = NOISES[name]
    y = draws(name)
    error = np.abs(y.mean(0) - MEAN) / np.sqrt(variance(MEAN))
    assert error.max() < 5 / np.sqrt(COUNT), "of a standard error"
    np.testing.assert_allclose(y.var(0), variance(MEAN), rtol=0.1)
    np.testing.assert_allclose(noise.variance(MEAN), variance(MEAN), rtol=1e-12)
    residual = np.asarray(jax.vmap(noise.residual, (0, None))(y, MEAN)).std(0)
    assert residual.max() / residual.min() < 1.1


def test_keeps_dtype_and_does_not_retrace(row):
    """Also numpy's float64, of which no array is made where JAX has none."""
    noise, traces = row[0], []

    @jax.jit
    def everything(noise, y, mean):
        traces.append(1)
        drawn = noise.draw(KEY, mean)
        return drawn, noise.residual(y, mean), noise.variance(mean), noise.log_prob(y, mean)

    with jax.enable_x64(False):
        y, mean = (np.full(SHAPE, v, "f") for v in (0.4, 0.5))
        jax.eval_shape(lambda: everything.__wrapped__(noise, y, mean.astype(np.float64)))
        traces.clear()
        found = jax.eval_shape(everything, noise, y, mean)
        assert {a.dtype for a in found} == {np.dtype("float32")}
        jax.eval_shape(everything, jax.tree.map(lambda leaf: 2 * leaf, noise), y, mean)
    assert len(traces) == 1


def test_the_sum_over_counts_is_exact_at_any_light(x64):
    """From a fraction of a photon to more counts than terms, at likely and unlikely measurements."""
    log_prob = jax.jit(lambda *args: PoissonGaussian(*args[:2]).log_prob(*args[2:]))
    for peak, sigma in ((0.7, 0.3), (1000, 0.01), (20_000, 0.2), (5, 1e-3)):
        for mean in (1e-3, 0.05, 1.0):
            y = mean + np.array([-3, 0, 1, 5]) * np.sqrt(mean / peak + sigma**2)
            expected = poisson_gaussian(y, np.full(4, mean), peak, sigma)
            found = [log_prob(float(peak), sigma, np.float64(one), np.float64(mean)) for one in y]
            np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


def test_the_residual_follows_poissons_score(x64):
    """−∇‖residual‖²/2 is a multiple of ∇log p: DPS with it descends the true likelihood."""
    y = draws("poisson")[0]
    noise, mean = Poisson(100), jnp.asarray(MEAN * 1.1)
    descent = jax.grad(lambda m: -jnp.sum(noise.residual(y, m) ** 2) / 2)(mean)
    _, slope = score(noise, y, mean)
    np.testing.assert_allclose(descent / slope, (descent / slope).mean(), rtol=1e-9)


@pytest.mark.parametrize("name", NOISES)
def test_dps_takes_it_and_what_needs_a_gaussian_says_so(name):
    noise = NOISES[name][0]
    if name == "gaussian-per-pixel":
        noise = Gaussian(np.linspace(0.05, 0.2, 64).reshape(8, 8, 1))
    plain = make("dps")
    images = [
        jd.sample(dataclasses.replace(plain, sigma=s), SCHEDULE.steps(3), key=KEY)
        for s in (None, noise)
    ]
    assert np.isfinite(images).all()
    weighted = name in ("gaussian-per-pixel", "poisson", "poisson-gaussian")
    assert (float(jnp.abs(images[0] - images[1]).max()) > 1e-4) == weighted
    if isinstance(noise, Gaussian):
        return
    for other in LINEAR_ONLY:
        with pytest.raises(TypeError, match=rf"Gaussian noise, got {type(noise).__name__}: DPS"):
            dataclasses.replace(make(other), sigma=noise)


OBSERVED = {
    "mask": lambda rng: jd.operators.Mask(rng.random((6, 6)) < 0.6),
    "crop-of-blur": lambda rng: (
        jd.operators.Crop(1) @ jd.operators.Blur(rng.random((3, 3)), (6, 6))
    ),
}


@pytest.mark.parametrize("name", OBSERVED)
def test_a_deviation_for_each_pixel_is_solved_for(name, x64):
    """The residual, the solve and the prox of Σ = diag(σ²), against dense matrices."""
    rng = np.random.default_rng(4)
    operator = OBSERVED[name](rng)
    x = rng.random((6, 6, 1))
    shape = operator(x).shape
    sigma = rng.uniform(0.05, 0.5, (*shape[:2], 1))
    y = np.asarray(operator(x)) + 0.1 * rng.standard_normal(shape)
    seen = Observation(operator, y, Gaussian(sigma)) @ jd.operators.Affine(0.5, 0.5)
    state = rng.standard_normal((6, 6, 1))
    unit = jnp.eye(x.size).reshape(-1, *x.shape)
    a = np.asarray(jax.vmap(seen.operator.linear)(unit)).reshape(x.size, -1).T
    noise = np.diag(np.broadcast_to(sigma**2, shape).ravel())
    left = np.asarray(operator.project(y) - operator(0.5 * state + 0.5)).ravel()
    expected = a.T @ np.linalg.solve(0.3 * a @ a.T + noise, left)
    found, report = seen.solve(seen.residual(state), 0.3)
    assert report.get("cg_converged", True)
    np.testing.assert_allclose(found.ravel(), expected, atol=1e-8)
    moved, _ = seen.prox(state, 0.3)
    np.testing.assert_allclose(moved.ravel(), state.ravel() + 0.3 * expected, atol=1e-8)


PER_PIXEL = [n for n in RESTORING if "-" not in n and n != "blind"]  # which refuses it by name


@pytest.mark.parametrize("name", [*PER_PIXEL, "spectral-masked"])
def test_a_sampler_with_a_deviation_for_each_pixel_sees_the_whitened_measurement(name):
    """(c/σ)·y of (c/σ)·A with noise c is the same observation, and gives the same samples."""
    sampler = make(name)
    if sampler.requires_spectral:
        with pytest.raises(TypeError, match="Diagonal @ Blur has no spectral or diagonal form"):
            dataclasses.replace(sampler, sigma=Gaussian(np.full((8, 8, 1), 0.1)))
        sampler = dataclasses.replace(sampler, operator=KNOWN)
    noise = Gaussian(np.linspace(0.05, 0.2, 64).reshape(8, 8, 1))
    weights, common = noise.whitening()
    mapped = dataclasses.replace(sampler, sigma=noise)
    y = np.asarray(weights * sampler.operator.project(sampler.y), "f")
    operator = jd.operators.Diagonal(np.asarray(weights)) @ sampler.operator
    if name == "repaint":  # which takes the known pixels as they are, whatever their noise
        operator, y = sampler.operator, sampler.y
    white = dataclasses.replace(sampler, operator=operator, y=y, sigma=float(common))
    images = [jd.sample(s, SCHEDULE.steps(4, inner=s.inner), key=KEY) for s in (mapped, white)]
    np.testing.assert_allclose(*images, atol=2e-3)


@pytest.mark.parametrize(
    "make_noise, message",
    [
        (lambda: Poisson(0), "peak: expected a finite number > 0, such as 100, got 0"),
        (lambda: Poisson(-3.0), "peak: expected a finite number > 0"),
        (lambda: Poisson(np.nan), "peak: expected a finite number > 0"),
        (lambda: PoissonGaussian(100, 0), "sigma: expected a finite number > 0"),
        (lambda: PoissonGaussian(0, 0.1), "peak: expected a finite number > 0"),
        (lambda: Laplace(0.0), "scale: expected a finite number > 0"),
        (lambda: Laplace("a"), "scale: expected a finite number > 0"),
        (lambda: Quantised(1, 0.1), "levels: expected at least 2"),
        (lambda: Quantised(16, 0), "sigma: expected a finite number > 0"),
        (lambda: Gaussian(-0.1), "sigma: expected a finite number ≥ 0"),
        (lambda: Gaussian(np.full((4, 4), 0.1)), r"one for each pixel \[h, w, c\], got \[4, 4\]"),
        (lambda: Gaussian(np.zeros((4, 4, 1))), "sigma: is 0 at some pixels"),
        (lambda: dataclasses.replace(make("dps"), sigma=Gaussian(np.ones((8, 9, 1)))), "not fit"),
        (lambda: dataclasses.replace(make("dps"), sigma=np.ones((8, 8, 1))), "jd.noise.Gaussian's"),
        (lambda: dataclasses.replace(make("pigdm"), sigma=Gaussian(np.ones((8, 9, 1)))), "not fit"),
    ],
)  # fmt: skip
def test_bad_noises(make_noise, message):
    with pytest.raises(ValueError, match=message):
        make_noise()


def test_restores_what_poisson_degraded():
    """jd.restore takes a noise where it takes a sigma."""
    y = np.asarray(Poisson(50).draw(KEY, jnp.full((8, 8, 1), 0.4)))
    prior = jd.priors.Gaussian(np.full((8, 8), 0.1), SCHEDULE)
    restored = jd.restore(y, lambda x: x, Poisson(50), prior=prior, n=2, steps=3)
    assert restored.sampler == "spectral" and np.isfinite(restored.mean).all()
