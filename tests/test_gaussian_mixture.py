"""The mixture prior against quadrature, Tweedie's second formula, and its own marginals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiff as jd

SCHEDULE = jd.Schedule.from_config()


def mixture(shape=(2, 2, 1), count=3):
    rng = np.random.default_rng(0)
    size = int(np.prod(shape))
    roots = 0.3 * rng.standard_normal((count, size, size))
    means = rng.uniform(-1, 1, (count, *shape))
    return jd.priors.GaussianMixture(means, roots @ roots.swapaxes(1, 2), [1, 2, 3], SCHEDULE)


def test_posterior_mean_by_quadrature(x64):
    prior = mixture((1, 1, 1))
    x0 = np.linspace(-8, 8, 40001)
    variances, means = prior.covariances.ravel(), prior.means.ravel()
    density = sum(
        w / np.sqrt(v) * np.exp(-0.5 * (x0 - m) ** 2 / v)
        for w, m, v in zip(prior.weights, means, variances)
    )
    for t, x_t in ((50, 0.3), (400, -0.8), (900, 1.0)):
        a = SCHEDULE.alphas_cumprod[t]
        joint = density * np.exp(-0.5 * (x_t - np.sqrt(a) * x0) ** 2 / (1 - a))
        mean = (joint * x0).sum() / joint.sum()
        variance = (joint * (x0 - mean) ** 2).sum() / joint.sum()
        x = jnp.full((1, 1, 1), x_t)
        assert float(prior(x, t)[0, 0, 0]) == pytest.approx(mean, abs=1e-9)
        found = prior.covariance.at(x, a).matrix
        assert float(found[0, 0]) == pytest.approx(variance, abs=1e-9)


def test_covariance_is_the_jacobian(x64):
    """Cov[x₀ | x_t] = (1 − ᾱ)/√ᾱ·∂x̂₀/∂x_t; and Σ^½ is its root."""
    prior, t = mixture(), 300
    a = SCHEDULE.alphas_cumprod[t]
    x = jnp.asarray(np.random.default_rng(1).standard_normal((2, 2, 1)))
    jacobian = jax.jacobian(lambda x: prior(x, t))(x).reshape(4, 4)
    dense = prior.covariance.at(x, a)
    np.testing.assert_allclose(dense.matrix, (1 - a) / np.sqrt(a) * jacobian, atol=1e-12)
    root = jax.vmap(dense.draw)(jnp.eye(4).reshape(4, 2, 2, 1)).reshape(4, 4)
    np.testing.assert_allclose(root.T @ root, dense.matrix, atol=1e-10)
    assert prior(jnp.stack([x, x]), t).shape == (2, 2, 2, 1)


def test_spectra_are_circulant_covariances(x64):
    f = np.fft.fftfreq(4)
    spectrum = 0.3 / (1 + 40 * (f[:, None] ** 2 + f[None] ** 2))
    one = jd.priors.GaussianMixture(np.zeros((1, 4, 4, 1)), spectrum[None], [1], SCHEDULE)
    gaussian = jd.priors.Gaussian(spectrum, SCHEDULE)
    x = jnp.asarray(np.random.default_rng(1).standard_normal((4, 4, 1)))
    np.testing.assert_allclose(one(x, 300), gaussian(x, 300), atol=1e-12)


def test_multiples_of_the_identity(x64):
    """Given as variances: the same prior as with matrices, its covariance a few spikes on vI."""
    means = np.random.default_rng(0).uniform(-1, 1, (3, 2, 4, 1))
    variances = np.array([0.02, 0.05, 0.1])
    few, full = (
        jd.priors.GaussianMixture(means, c, [1, 2, 3], SCHEDULE)
        for c in (variances, variances[:, None, None] * np.eye(8))
    )
    x = jnp.asarray(0.4 * np.random.default_rng(1).standard_normal((2, 4, 1)))
    np.testing.assert_allclose(few(x, 300), full(x, 300), atol=1e-12)
    spiked, dense = (p.covariance.at(x, SCHEDULE.alphas_cumprod[300]) for p in (few, full))
    unit = jnp.eye(8).reshape(8, 2, 4, 1)
    applied, root = (jax.vmap(f)(unit).reshape(8, 8) for f in (spiked.apply, spiked.draw))
    np.testing.assert_allclose(applied, dense.matrix, atol=1e-12)
    np.testing.assert_allclose(root.T @ root, dense.matrix, atol=1e-9)


def test_exact_posterior_samples(x64):
    """Their mean, and the share of each mode, against importance weights of prior draws."""
    prior = mixture()
    mask = jd.operators.Mask(np.array([[1, 0], [1, 1]]))
    y = mask(np.full((2, 2, 1), 0.4))
    draws = prior.sample_posterior(jax.random.key(0), mask, y, 0.2, 20000)
    rng = np.random.default_rng(2)
    chosen = rng.choice(3, size=400000, p=prior.weights)
    roots = np.linalg.cholesky(prior.covariances)
    x = prior.means.reshape(3, 4)[chosen]
    x = x + np.einsum("nij,nj->ni", roots[chosen], rng.standard_normal(x.shape))
    misfit = (np.asarray(mask((x.reshape(-1, 2, 2, 1) + 1) / 2)) - np.asarray(y)) ** 2
    weights = np.exp(-0.5 * misfit.sum((1, 2, 3)) / 0.2**2)
    mean = weights @ x / weights.sum()
    std = np.sqrt(weights @ (x - mean) ** 2 / weights.sum())
    flat = draws.reshape(-1, 4)
    assert np.abs((flat.mean(0) - mean) / std).max() < 0.04
    np.testing.assert_allclose(flat.std(0), std, rtol=0.04)


@pytest.mark.parametrize("kind", ["mask", "blur"])
def test_the_spectral_sampler_takes_it(kind):
    """One component: exact again, now with dense matrices and the exact covariance."""
    size = 4
    f = np.fft.fftfreq(size)
    spectrum = 0.05 / (1 + 40 * (f[:, None] ** 2 + f[None] ** 2))
    prior = jd.priors.GaussianMixture(
        np.full((1, size, size, 1), 0.1), spectrum[None], [1], SCHEDULE
    )
    operator = {
        "mask": jd.operators.Mask(np.eye(size) < 1),
        "blur": jd.operators.Blur(np.ones((2, 2)) / 4, (size, size)),
    }[kind]
    y = np.asarray(operator(np.full((size, size, 1), 0.6, "f")))
    sampler = jd.SpectralPosterior(prior, operator, y, 0.05, prior.covariance)
    _, kept = jd.sample(
        sampler,
        SCHEDULE.steps(3, "trailing"),
        key=jax.random.key(0),
        n=3000,
        keep=lambda x, info: x,
    )
    exact = prior.sample_posterior(jax.random.key(1), operator, y, 0.05, 20000)
    std = exact.std(0)
    assert np.abs((np.asarray(kept[-1]).mean(0) - exact.mean(0)) / std).max() < 0.1
    np.testing.assert_allclose(np.asarray(kept[-1]).std(0), std, rtol=0.1)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"means": np.zeros((2, 2))}, "means"),
        ({"weights": [1, -1]}, "weights"),
        ({"covariances": np.ones((2, 3, 3))}, "covariances"),
        ({"covariances": -np.ones((2, 2, 2))}, "negative"),
        ({"covariances": -np.ones(2)}, "negative"),
    ],
)
def test_bad_mixtures(changes, message):
    fields = {
        "means": np.zeros((2, 2, 2, 1)),
        "covariances": np.ones((2, 2, 2)),
        "weights": [1, 1],
        "schedule": SCHEDULE,
    }
    with pytest.raises(ValueError, match=message):
        jd.priors.GaussianMixture(**(fields | changes))
    with pytest.raises(ValueError, match="sigma"):
        prior = jd.priors.GaussianMixture(**fields)
        prior.sample_posterior(jax.random.key(0), lambda x: x, np.zeros((2, 2, 1)), 0, 1)
