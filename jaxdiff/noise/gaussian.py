"""Gaussian noise."""

from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxdiff.noise.base import Noise
from jaxdiff.util.arrays import Number
from jaxdiff.util.pytree import field, pytree


def as_deviation(value) -> Any:
    """A finite number ≥ 0, or one for each of a batch [B], in float64.

    Raises:
        ValueError: for anything else.
    """
    if isinstance(value, jax.core.Tracer):
        return value
    array = np.asarray(value)
    if not (array.dtype.kind in "fiu" and ((array >= 0) & (array < np.inf)).all()):
        raise ValueError(f"sigma: expected a finite number ≥ 0, got {value!r}")
    return array.astype(np.float64)


@pytree
class Gaussian(Noise):
    """y = mean + σ·n, n ~ N(0, I).

    Args:
        sigma: σ ≥ 0 in the measurement's units.

    Raises:
        ValueError: for another σ.

    Example:
        >>> float(Gaussian(0.5).log_prob(jnp.ones(2), jnp.zeros(2)))
        -4.0
    """

    sigma: Number = field(converter=as_deviation)

    def log_prob(self, y, mean) -> jax.Array:
        """−‖y − mean‖²/(2σ²)."""
        return -jnp.sum((y - mean) ** 2) / (2 * jnp.asarray(self.sigma, mean.dtype) ** 2)

    def draw(self, key, mean) -> jax.Array:
        """mean + σ·n."""
        noise = jax.random.normal(key, mean.shape, mean.dtype)
        return mean + jnp.asarray(self.sigma, mean.dtype) * noise


def as_noise(sigma) -> Any:
    """What a user passes as sigma: a noise as it is, or the deviation of a Gaussian's."""
    return sigma if isinstance(sigma, Noise) else as_deviation(sigma)
