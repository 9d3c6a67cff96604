"""Samplers on a stationary Gaussian prior: an affine recursion per frequency, no Monte Carlo.

With the exact denoiser x̂₀ = D x_t every step of a linear sampler is x ← f·x + g·y + w·z at each
frequency, so that the law of its result is known: a mean and a variance, to compare with the
posterior's. y is the measurement less A(1/2), the transform orthonormal.
"""

import operator
from typing import NamedTuple

import jax
import numpy as np

import jaxdiff as jd


class Problem(NamedTuple):
    """A prior with the eigenvalues `spectrum` [H, W], a blur with transfer K, noise σ, and ŷ."""

    prior: jd.priors.Gaussian
    blur: jd.operators.Blur
    sigma: float
    y: np.ndarray  # [H, W, 1], image units

    @property
    def k(self):
        return np.fft.fft2(np.fft.ifftshift(self.blur.kernel))

    @property
    def y_hat(self):
        centred = self.y[..., 0] - np.asarray(self.blur(np.full(self.y.shape, 0.5)))[..., 0]
        return np.fft.fft2(centred, norm="ortho")

    def posterior(self):
        """Mean and variance by frequency, in the network's units."""
        s, k = self.prior.spectrum, self.k / 2
        gain = s / (np.abs(k) ** 2 * s + self.sigma**2)
        return np.conj(k) * gain * self.y_hat, self.sigma**2 * gain


def coefficients(sampler: str, problem: Problem, c: jd.Steps):
    """(f, g, w) of one step of a posterior sampler, with its defaults.

    Or, with g = 0, of what samples the prior: "ddpm", "ddpm-covariance" or "ddim". MMPS is taken with
    as many conjugate gradients as it needs.
    """
    if sampler in REPLACING:
        return REPLACING[sampler](problem, c)
    s, a, k = problem.prior.spectrum, c.alphas_cumprod, problem.k
    d = np.sqrt(a) * s / (a * s + 1 - a)
    ddpm = c.x0_coef * d + c.xt_coef
    if sampler == "ddpm":
        return ddpm, 0, np.full(s.shape, c.sigma)
    if sampler == "ddim":
        eps = (1 - np.sqrt(a) * d) / np.sqrt(1 - a)
        previous = c.alphas_cumprod_prev
        return np.sqrt(previous) * d + np.sqrt(1 - previous) * eps, 0, np.zeros(s.shape)
    if sampler.startswith("pigdm"):
        v = c.posterior_variance if sampler == "pigdm" else (1 - a) / a
        r2, unit = v / (1 + v), 1 if sampler == "pigdm" else 1 / 4
        solve = np.conj(k) / (r2 * unit * np.abs(k) ** 2 + problem.sigma**2)
        g = r2 / np.sqrt(1 + v) * d / 2 * solve
        return ddpm - g * k * d / 2, g, np.full(s.shape, c.sigma)
    p = s * (1 - a) / (a * s + 1 - a)
    if sampler == "ddpm-covariance":
        return ddpm, 0, np.sqrt(c.x0_coef**2 * p + c.posterior_variance)
    gain = p / (np.abs(k) ** 2 / 4 * p + problem.sigma**2)
    g = c.x0_coef * np.conj(k) / 2 * gain
    drawn = c.x0_coef**2 * problem.sigma**2 * gain if sampler == "spectral" else 0
    return ddpm - g * k * d / 2, g, np.sqrt(drawn + c.posterior_variance + 0 * s)


def _given_x0(problem: Problem, c: jd.Steps, gain, share=None):
    """(f, g, w) of `move` to x₀ = x̂₀ + gain·(y − Kx̂₀), K of states."""
    k, a, following = problem.k / 2, c.alphas_cumprod, c.alphas_cumprod_prev
    d = np.sqrt(a) * problem.prior.spectrum / (a * problem.prior.spectrum + 1 - a)
    kept, fresh = c.xt_coef, c.noise_coef
    if share is not None:
        kept = np.sqrt((1 - following) / (1 - a) * (1 - share))
        fresh = np.sqrt((1 - following) * share)
    to_x0 = np.sqrt(following) - kept * np.sqrt(a)
    return to_x0 * (d - gain * k * d) + kept, to_x0 * gain, np.full(k.shape, fresh)


def _diffpir(problem: Problem, c: jd.Steps):
    """λ = 1, ζ = 0.1."""
    k, v = problem.k / 2, (1 - c.alphas_cumprod) / c.alphas_cumprod
    return _given_x0(problem, c, v * k.conj() / (v * np.abs(k) ** 2 + problem.sigma**2), 0.1)


def _covariance(problem: Problem, c: jd.Steps):
    """Of x₀ given x_t."""
    s, a = problem.prior.spectrum, c.alphas_cumprod
    return s * (1 - a) / (a * s + 1 - a)


def _mmps(problem: Problem, c: jd.Steps):
    k, p = problem.k / 2, _covariance(problem, c)
    return _given_x0(problem, c, p * k.conj() / (p * np.abs(k) ** 2 + problem.sigma**2))


def _tmpd(problem: Problem, c: jd.Steps):
    """The rows of AΣAᵀ all sum to what it makes of a constant."""
    k, p = problem.k / 2, _covariance(problem, c)
    rows = np.abs(k[0, 0]) ** 2 * p[0, 0]
    return _given_x0(problem, c, p * k.conj() / (rows + problem.sigma**2))


def _spectral_form(problem: Problem, c: jd.Steps, eta=0.85):
    """DDRM with η_b = 1, and DDNM+, which then is the same."""
    k, a, following = problem.k / 2, c.alphas_cumprod, c.alphas_cumprod_prev
    s, e = np.abs(k), np.sqrt((1 - following) / following)
    d = np.sqrt(a) * problem.prior.spectrum / (a * problem.prior.spectrum + 1 - a)
    eps = (1 - np.sqrt(a) * d) / np.sqrt(1 - a)
    zero = s <= s.max() * 1e-12
    at_y = problem.sigma / np.where(zero, 1, s)  # y's noise, along x₀
    own, sees = np.sqrt(1 - eta**2) * e, e >= at_y
    toward = np.where(sees, 1, own / at_y)
    fresh = np.where(sees, np.sqrt(np.maximum(e**2 - at_y**2, 0)), eta * e)
    own = np.where(zero, own, 0)
    toward, fresh = np.where(zero, 0, toward), np.where(zero, eta * e, fresh)
    f, g = (1 - toward) * d + own * eps, toward / np.where(zero, 1, k)
    return np.sqrt(following) * f, np.sqrt(following) * g, np.sqrt(following) * fresh


REPLACING = {
    "diffpir": _diffpir,
    "mmps": _mmps,
    "tmpd": _tmpd,
    "ddrm": _spectral_form,
    "ddnm": _spectral_form,
}


def law(sampler: str, problem: Problem, steps: jd.Steps):
    """Mean and variance by frequency of what the sampler returns, from x_T ~ N(0, I)."""
    mean, variance = np.zeros(problem.k.shape, complex), np.ones(problem.k.shape)
    for i in range(len(steps)):
        f, g, w = coefficients(sampler, problem, row(steps, i))
        mean = f * mean + g * problem.y_hat
        variance = np.abs(f) ** 2 * variance + w**2
    return mean, variance


def row(steps: jd.Steps, i: int) -> jd.Steps:
    """The coefficients of step i."""
    return jax.tree.map(operator.itemgetter(i), steps)


def compare(sampler: str, problem: Problem, steps: jd.Steps) -> dict[str, float]:
    """How far the sampler's law is from the posterior's (see `distances`)."""
    return distances(*law(sampler, problem, steps), problem)


def distances(mean, variance, problem: Problem) -> dict[str, float]:
    """How far a law by frequency is from the posterior's: 0, 1 and 0 where it is exact.

    `mean_error`: rms error of the mean over the posterior's rms deviation; `spread_ratio`: of rms
    deviations; `wasserstein`: the 2-Wasserstein distance over the posterior's rms deviation.
    """
    exact_mean, exact_variance = problem.posterior()
    scale = np.sqrt(exact_variance.mean())
    error = np.abs(mean - exact_mean) ** 2
    spread = (np.sqrt(variance) - np.sqrt(exact_variance)) ** 2
    return {
        "mean_error": float(np.sqrt(error.mean()) / scale),
        "spread_ratio": float(np.sqrt(variance.mean()) / scale),
        "wasserstein": float(np.sqrt((error + spread).mean()) / scale),
    }


def example(size: int = 32, sigma: float = 10 / 255) -> Problem:
    """A prior whose power falls as 1/f², a camera shake, and a measurement of a draw."""
    f = np.fft.fftfreq(size)
    spectrum = 0.05 / (1 + 400 * (f[:, None] ** 2 + f[None] ** 2))
    prior = jd.priors.Gaussian(spectrum, jd.Schedule.from_config())
    blur = jd.operators.Blur(jd.data.motion_kernel(min(9, size - 1), seed=0), (size, size))
    rng = np.random.default_rng(0)
    white = np.fft.fft2(rng.standard_normal((size, size)))
    x = (np.fft.ifft2(np.sqrt(spectrum) * white).real[..., None] + 1) / 2
    y = np.asarray(blur(x)) + sigma * rng.standard_normal(x.shape)
    return Problem(prior, blur, sigma, y)
