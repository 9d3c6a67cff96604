"""Noise before rounding: a measurement of few bits."""

import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr

from jaxdiff.noise.base import Noise
from jaxdiff.util.arrays import Number, positive
from jaxdiff.util.pytree import concrete, field, pytree


@pytree
class Quantised(Noise):
    """y = round((mean + σ·n)/Δ)·Δ with Δ = 1/(levels − 1), n ~ N(0, I): rounded to levels of [0, 1].

    The variance is σ² + Δ²/12, to a percent where σ ≥ 0.4Δ. Levels outside [0, 1] are not cut off:
    `jd.operators.Saturate` does that.

    Args:
        levels: > 1: 256 of an image of 8 bits, 2 of one that is black or white.
        sigma: σ > 0 of the noise before rounding, in the measurement's units.

    Raises:
        ValueError: for other levels or σ. Without noise a likelihood is 0 or 1, and has no gradient.

    Example:
        >>> float(Quantised(5, 0.1).draw(jax.random.key(0), jnp.array(0.5))) in (0.25, 0.5, 0.75)
        True
    """

    levels: Number = field(converter=positive("levels", "16"))
    sigma: Number = field(converter=positive("sigma", "half a level"))

    def __post_init__(self):
        if concrete(self.levels) and not self.levels > 1:
            raise ValueError(f"levels: expected at least 2, got {self.levels:g}")

    def _parameters(self, dtype):
        return 1 / (jnp.asarray(self.levels, dtype) - 1), jnp.asarray(self.sigma, dtype)

    def log_prob(self, y, mean) -> jax.Array:
        """Σ log(Φ((d + Δ/2)/σ) − Φ((d − Δ/2)/σ)), d = y − mean: the probability of the levels."""
        mean = jnp.asarray(mean)
        step, sigma = self._parameters(mean.dtype)
        d = -jnp.abs(y - mean)  # symmetric, and there the smaller part of Φ
        upper, lower = log_ndtr((d + step / 2) / sigma), log_ndtr((d - step / 2) / sigma)
        return jnp.sum(upper + jnp.log(-jnp.expm1(lower - upper)))

    def draw(self, key, mean) -> jax.Array:
        """The nearest level to mean + σ·n."""
        mean = jnp.asarray(mean)
        step, sigma = self._parameters(mean.dtype)
        noisy = mean + sigma * jax.random.normal(key, mean.shape, mean.dtype)
        return jnp.round(noisy / step) * step

    def variance(self, mean) -> jax.Array:
        """σ² + Δ²/12."""
        mean = jnp.asarray(mean)
        step, sigma = self._parameters(mean.dtype)
        return jnp.full_like(mean, sigma**2 + step**2 / 12)
