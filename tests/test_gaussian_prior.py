"""Samplers on a Gaussian prior, where everything is known exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiff as jd


def gaussian_prior():
    """A stationary prior at 8², smooth, of variance about 0.1."""
    f = np.fft.fftfreq(8)
    spectrum = 0.3 / (1 + 40 * (f[:, None] ** 2 + f[None] ** 2))
    return jd.priors.Gaussian(spectrum, jd.Schedule.from_config())


@pytest.mark.parametrize("name", ["ddpm", "ddim"])
def test_gaussian_prior_obeys_the_affine_recursion(name):
    """With an exact denoiser every step is affine per frequency: so are the variances, exactly.

    3,000 draws at 20 steps; mean over the 64 frequencies of a ratio with a standard error of 0.4 %.
    """
    prior = gaussian_prior()
    steps = prior.schedule.steps(20)
    eta = 0.5
    sampler = jd.DDPM(prior) if name == "ddpm" else jd.DDIM(prior, eta)
    last = jd.sample(sampler, steps, key=jax.random.key(0), n=3000, keep=lambda x, info: x)[1][-1]
    power = (np.abs(np.fft.fft2(np.asarray(last)[..., 0])) ** 2 / 64).mean(0)
    variance = np.ones((8, 8))
    for i in range(20):
        a, a_prev = steps.alphas_cumprod[i], steps.alphas_cumprod_prev[i]
        gain = np.sqrt(a) * prior.spectrum / (a * prior.spectrum + 1 - a)
        if name == "ddpm":
            factor, sigma = steps.x0_coef[i] * gain + steps.xt_coef[i], steps.sigma[i]
        else:
            sigma = eta * np.sqrt((1 - a_prev) / (1 - a) * (1 - a / a_prev))
            eps = (1 - np.sqrt(a) * gain) / np.sqrt(1 - a)
            factor = np.sqrt(a_prev) * gain + np.sqrt(1 - a_prev - sigma**2) * eps
        variance = factor**2 * variance + sigma**2
    assert np.mean(power / variance) == pytest.approx(1, abs=0.015)
    assert np.abs(power / variance - 1).max() < 0.15


def test_gaussian_denoiser_is_the_posterior_mean(x64):
    """Against E[x₀ | x_t] by dense linear algebra."""
    prior = gaussian_prior()
    t = 300
    a = prior.schedule.alphas_cumprod[t]
    transform = np.fft.fft(np.eye(8), norm="ortho")
    f2 = np.kron(transform, transform)
    covariance = (f2.conj().T @ np.diag(prior.spectrum.ravel()) @ f2).real
    x = np.random.default_rng(0).standard_normal((8, 8, 1))
    gain = np.sqrt(a) * covariance @ np.linalg.inv(a * covariance + (1 - a) * np.eye(64))
    np.testing.assert_allclose(prior(jnp.asarray(x), t).ravel(), gain @ x.ravel(), atol=1e-12)


def test_guidance_is_the_likelihood_score(x64):
    """One step of ΠGDM (paper) moves x by r²·√ᾱ ∇ log N(y; A x̂₀, A ρ² Aᵀ + σ²I), ρ² = r²/4."""
    prior = gaussian_prior()
    operator = jd.operators.Blur(np.ones((3, 3)) / 9, (8, 8))
    y = np.random.default_rng(1).random((8, 8, 1))
    x = jnp.asarray(0.3 * np.random.default_rng(2).standard_normal((8, 8, 1)))
    sampler = jd.PiGDM(prior, operator, y, 0.1, variance="paper")
    steps = prior.schedule.steps(20)
    c = jax.tree.map(lambda v: jnp.asarray(v[15]), steps)
    unit = jnp.eye(64).reshape(64, 8, 8, 1)
    matrix = np.asarray(jax.vmap(operator)(unit)).reshape(64, 64).T
    r2 = 1 - steps.alphas_cumprod[15]
    inverse = np.linalg.inv(r2 / 4 * matrix @ matrix.T + 0.01 * np.eye(64))

    def log_likelihood(x):
        r = y.ravel() - matrix @ ((jnp.clip(prior(x, c.t), -1, 1) + 1) / 2).ravel()
        return -0.5 * r @ inverse @ r

    zero = jnp.zeros_like(x)
    moved = sampler.step(x, c, zero)[0] - jd.DDPM(prior).step(x, c, zero)[0]
    expected = r2 * np.sqrt(steps.alphas_cumprod[15]) * jax.grad(log_likelihood)(x)
    np.testing.assert_allclose(moved, expected, atol=1e-10)
