"""Samplers on a Gaussian prior, where everything is known exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiff as jd
from jaxdiff.samplers import Draws


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

    zero = Draws(jnp.zeros_like(x))
    moved = sampler.step(x, c, zero)[0] - jd.DDPM(prior).step(x, c, zero)[0]
    expected = r2 * np.sqrt(steps.alphas_cumprod[15]) * jax.grad(log_likelihood)(x)
    np.testing.assert_allclose(moved, expected, atol=1e-10)


def exact_posterior(prior, operator, y, sigma):
    """Mean and covariance of x₀ in the network's units given y, by dense linear algebra."""
    h, w = prior.spectrum.shape
    f2 = np.kron(np.fft.fft(np.eye(h), norm="ortho"), np.fft.fft(np.eye(w), norm="ortho"))
    covariance = (f2.conj().T @ np.diag(prior.spectrum.ravel()) @ f2).real
    unit = jnp.eye(h * w).reshape(h * w, h, w, 1)
    a = np.asarray(jax.vmap(operator)(unit), np.float64).reshape(h * w, -1).T
    residual = np.asarray(y, np.float64).ravel() - a @ np.full(h * w, 0.5)
    inner = a @ covariance @ a.T / 4 + sigma**2 * np.eye(len(a))
    gain = covariance @ a.T / 2 @ np.linalg.inv(inner)
    return gain @ residual, covariance - gain @ a @ covariance / 2


SCHEDULES = {
    "vp": jd.Schedule.from_config(),
    "ve": jd.schedules.VESchedule(),
    "edm": jd.schedules.EDMSchedule(),
    "flow": jd.schedules.FlowSchedule(),
}


@pytest.mark.parametrize(
    "kind, schedule, steps",
    [
        *((kind, "vp", steps) for kind in ("blur", "mask") for steps in (1, 5)),
        *(("blur", schedule, 7) for schedule in SCHEDULES if schedule != "vp"),
        ("mask", "ve", 2),
    ],
)
def test_spectral_posterior_is_exact(kind, schedule, steps):
    """4,000 draws at 16²: the exact posterior's mean and spread, at one step as at many.

    The error of the mean over the standard deviation has an rms of 1/√4000 = 0.016 by chance.
    """
    f = np.fft.fftfreq(16)
    spectrum = 0.05 / (1 + 40 * (f[:, None] ** 2 + f[None] ** 2))
    prior = jd.priors.Gaussian(spectrum, SCHEDULES[schedule])
    rng = np.random.default_rng(0)
    operator, sigma = {
        "blur": (jd.operators.Blur(rng.random((4, 5)) / 10, (16, 16)), 0.05),
        "mask": (jd.operators.Mask(rng.random((16, 16)) < 0.5), 0.03),
    }[kind]
    y = np.asarray(operator(rng.random((16, 16, 1)).astype("f")))
    sampler = jd.SpectralPosterior(prior, operator, y, sigma, prior.covariance)
    coefficients = prior.schedule.steps(steps, "trailing" if schedule == "vp" else None)
    _, kept = jd.sample(
        sampler, coefficients, key=jax.random.key(0), n=4000, keep=lambda x, info: x
    )
    draws = np.asarray(kept[-1]).reshape(4000, -1)
    mean, covariance = exact_posterior(prior, operator, y, sigma)
    std = np.sqrt(np.diag(covariance))
    assert np.sqrt(np.mean(((draws.mean(0) - mean) / std) ** 2)) < 0.025
    assert np.sqrt(np.mean(draws.var(0) / std**2)) == pytest.approx(1, abs=0.015)
    # Not only by pixel: along the directions in which the posterior is narrowest and widest.
    values, directions = np.linalg.eigh(covariance)
    ratio = ((draws - draws.mean(0)) @ directions).var(0) / values
    assert np.abs(ratio - 1).max() < 0.15


def test_ddpm_with_the_covariance_has_the_priors_spread():
    """Three steps: the variance by frequency is the prior's; without the covariance it is not."""
    prior = gaussian_prior()
    steps = prior.schedule.steps(3, "trailing")

    def ratio(sampler):
        _, kept = jd.sample(sampler, steps, key=jax.random.key(0), n=3000, keep=lambda x, i: x)
        power = np.abs(np.fft.fft2(np.asarray(kept[-1])[..., 0])) ** 2 / 64
        return power.mean(0) / prior.spectrum

    assert np.abs(ratio(jd.DDPM(prior, prior.covariance)) - 1).max() < 0.15
    assert ratio(jd.DDPM(prior)).mean() < 0.5


def test_estimate_finds_the_exact_covariance():
    """Measured on 512 draws of the prior, against the closed form at all noise levels."""
    prior = gaussian_prior()
    x = np.fft.fft2(np.random.default_rng(0).standard_normal((512, 8, 8)))
    x = np.fft.ifft2(np.sqrt(prior.spectrum) * x).real[..., None]
    images = np.clip((x + 1) / 2, 0, 1).astype("f")
    estimated = jd.SpectralCovariance.estimate(prior, images, key=jax.random.key(0), levels=9)
    for t in (0, 30, 200, 450, 800, 999):
        a = prior.schedule.alphas_cumprod[t]
        found = estimated.at(jnp.zeros((8, 8, 1)), a).matrices
        exact = prior.covariance.at(jnp.zeros((8, 8, 1)), a).matrices
        assert np.mean(found / exact) == pytest.approx(1, abs=0.05)
        assert np.abs(np.log(found / exact)).max() < 0.35
    with pytest.warns(UserWarning, match="measured on 3 images"):
        jd.SpectralCovariance.estimate(prior, images[:3], key=jax.random.key(0), levels=2)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        jd.SpectralCovariance.estimate(prior, images * 2, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"\[N, H, W, 1\]"):
        jd.SpectralCovariance.estimate(prior, images[0], key=jax.random.key(0))


def test_a_table_serves_other_sizes_and_is_saved(tmp_path, x64):
    """The same process at twice the size: its spectrum is a function of the frequency alone."""

    def spectrum(size):
        f = np.fft.fftfreq(size)
        return 0.3 / (1 + 40 * (f[:, None] ** 2 + f[None] ** 2))

    schedule = jd.Schedule.from_config()
    timesteps = np.array([0, 250, 500, 750, 999])
    a = schedule.alphas_cumprod[timesteps]
    radius = np.arange(7) / 8
    s = 0.3 / (1 + 40 * radius**2)
    table = (s / (a[:, None] * s + 1 - a[:, None]))[..., None, None]
    jd.SpectralCovariance(table, timesteps, a, 1 / 8).save(tmp_path)
    covariance = jd.SpectralCovariance.load(tmp_path)
    big = jd.priors.Gaussian(spectrum(16), schedule)
    covariance.check(big)
    found = covariance.at(jnp.zeros((16, 16, 1)), a[2]).matrices
    exact = big.covariance.at(jnp.zeros((16, 16, 1)), a[2]).matrices
    on_rings = np.hypot(np.fft.fftfreq(16)[:, None], np.fft.rfftfreq(16)) * 8 % 1 == 0
    np.testing.assert_allclose(found[on_rings], exact[on_rings], rtol=1e-10)
    assert np.abs(np.log(found / exact)).max() < 0.15
    (tmp_path / "spectral_covariance.safetensors").write_bytes(b"not one")
    with pytest.raises(ValueError, match="not a table"):
        jd.SpectralCovariance.load(tmp_path)
