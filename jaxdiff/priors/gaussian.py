"""The exact denoiser of a stationary Gaussian prior."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxdiff.denoiser import Prior
from jaxdiff.linalg.fields import Stationary
from jaxdiff.schedules import Level, Schedule
from jaxdiff.util.arrays import Array
from jaxdiff.util.pytree import field, pytree


@pytree
class Gaussian(Prior):
    """x₀ ~ N(0, F* diag(spectrum) F), one channel: E[x₀ | x_t] in closed form.

    x̂₀ = F* diag(α_t·s/(α_t²·s + σ_t²)) F x_t for the eigenvalues s of the covariance. With it
    a sampler can be tested against the exact posterior; no clipping, in [-1, 1].

    Args:
        spectrum: [H, W], eigenvalues ≥ 0 in the order of `fft2`, symmetric under k → −k.
        schedule: gives the level of a timestep.

    Raises:
        ValueError: for negative eigenvalues, or a spectrum whose covariance is not real.

    Example:
        >>> prior = Gaussian(np.ones((4, 4)), Schedule.from_config())
        >>> prior(jnp.ones((4, 4, 1)), 0).shape
        (4, 4, 1)
    """

    spectrum: Array = field(converter=lambda s: np.asarray(s, np.float64))
    schedule: Schedule

    def __post_init__(self):
        s = self.spectrum
        if s.ndim != 2 or not (np.isfinite(s).all() and (s >= 0).all()):
            raise ValueError(f"spectrum: expected [H, W] of numbers ≥ 0, got shape {list(s.shape)}")
        if not np.allclose(s, np.roll(s[::-1, ::-1], (1, 1), (0, 1))):
            raise ValueError("spectrum: must be symmetric under k → −k, or the images are complex")

    @property
    def shape(self) -> tuple[int, ...]:
        """[H, W, 1]."""
        return (*self.spectrum.shape, 1)

    @property
    def covariance(self) -> "GaussianCovariance":
        """Cov[x₀ | x_t], exactly."""
        return GaussianCovariance(self)

    def __call__(self, x, at):
        """x̂₀ of x_t [..., H, W, C] at a level or a timestep."""
        _, alpha, sigma = self.level(at)
        alpha, sigma = jnp.asarray(alpha, x.dtype), jnp.asarray(sigma, x.dtype)
        s = jnp.asarray(self.spectrum, x.dtype)[..., None]
        gain = alpha * s / (alpha**2 * s + sigma**2)
        transform = jnp.fft.fft2(x, axes=(-3, -2))
        return jnp.fft.ifft2(gain * transform, axes=(-3, -2)).real.astype(x.dtype)


@pytree
class GaussianCovariance:
    """Cov[x₀ | x_t] = F* diag(s·σ_t²/(α_t²·s + σ_t²)) F of a `Gaussian`."""

    prior: Gaussian
    stationary = True

    def at(self, x_t, at: Level | Any, x0_hat=None) -> Stationary:
        """At a level, or its ᾱ."""
        at = Level.of(at)
        signal, noise = jnp.asarray(at.signal, x_t.dtype), jnp.asarray(at.noise, x_t.dtype)
        s = jnp.asarray(self.prior.spectrum, x_t.dtype)[:, : x_t.shape[1] // 2 + 1]
        return Stationary((s * noise / (signal * s + noise))[..., None, None])

    def check(self, denoiser) -> None:
        """Raises ValueError where it is not this prior's own."""
        if denoiser.shape != self.prior.shape:
            raise ValueError(
                f"covariance: of a Gaussian prior {list(self.prior.shape)}, the denoiser is another"
            )
