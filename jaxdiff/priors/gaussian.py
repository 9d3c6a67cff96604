"""The exact denoiser of a stationary Gaussian prior."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxdiff.linalg.fields import Stationary
from jaxdiff.schedules.ddpm import Schedule
from jaxdiff.util.pytree import pytree


@pytree
class Gaussian:
    """x₀ ~ N(0, F* diag(spectrum) F), one channel: E[x₀ | x_t] in closed form.

    x̂₀ = F* diag(√ᾱ_t·s/(ᾱ_t·s + 1 − ᾱ_t)) F x_t for the eigenvalues s of the covariance. With it
    a sampler can be tested against the exact posterior; no clipping, model units.

    Args:
        spectrum: [H, W], eigenvalues ≥ 0 in the order of `fft2`, symmetric under k → −k.
        schedule: gives ᾱ_t.

    Raises:
        ValueError: for negative eigenvalues, or a spectrum whose covariance is not real.

    Example:
        >>> prior = Gaussian(np.ones((4, 4)), Schedule.from_config())
        >>> prior(jnp.ones((4, 4, 1)), 0).shape
        (4, 4, 1)
    """

    spectrum: Any
    schedule: Schedule

    def __post_init__(self):
        s = np.asarray(self.spectrum, np.float64)
        if s.ndim != 2 or not (np.isfinite(s).all() and (s >= 0).all()):
            raise ValueError(f"spectrum: expected [H, W] of numbers ≥ 0, got shape {list(s.shape)}")
        if not np.allclose(s, np.roll(s[::-1, ::-1], (1, 1), (0, 1))):
            raise ValueError("spectrum: must be symmetric under k → −k, or the images are complex")
        object.__setattr__(self, "spectrum", s)

    @property
    def shape(self) -> tuple[int, int, int]:
        """[H, W, 1]."""
        return (*self.spectrum.shape, 1)

    @property
    def covariance(self) -> "GaussianCovariance":
        """Cov[x₀ | x_t], exactly."""
        return GaussianCovariance(self)

    def __call__(self, x_t, t):
        """x̂₀ of x_t [..., H, W, C]."""
        a = jnp.asarray(self.schedule.alphas_cumprod, x_t.dtype)[t]
        s = jnp.asarray(self.spectrum, x_t.dtype)[..., None]
        gain = jnp.sqrt(a) * s / (a * s + 1 - a)
        transform = jnp.fft.fft2(x_t, axes=(-3, -2))
        return jnp.fft.ifft2(gain * transform, axes=(-3, -2)).real.astype(x_t.dtype)


@pytree
class GaussianCovariance:
    """Cov[x₀ | x_t] = F* diag(s(1 − ᾱ_t)/(ᾱ_t·s + 1 − ᾱ_t)) F of a `Gaussian`."""

    prior: Gaussian
    stationary = True

    def at(self, x_t, alphas_cumprod, x0_hat=None) -> Stationary:
        """At the noise level ᾱ_t."""
        a = jnp.asarray(alphas_cumprod, x_t.dtype)
        s = jnp.asarray(self.prior.spectrum, x_t.dtype)[:, : x_t.shape[1] // 2 + 1]
        return Stationary((s * (1 - a) / (a * s + 1 - a))[..., None, None])

    def check(self, denoiser) -> None:
        """Raises ValueError where it is not this prior's own."""
        if getattr(denoiser, "shape", None) != self.prior.shape:
            raise ValueError(
                f"covariance: of a Gaussian prior {list(self.prior.shape)}, the denoiser is another"
            )
