"""Gaussian noise."""

from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxdiff.noise.base import Noise, standardised
from jaxdiff.util.arrays import Array, Number
from jaxdiff.util.pytree import concrete, field, pytree


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
        sigma: σ ≥ 0 in the measurement's units; or one > 0 for each of its pixels, [h, w, c] or
            [h, w, 1].

    Raises:
        ValueError: for another σ.

    Example:
        >>> round(float(Gaussian(0.5).log_prob(jnp.ones(2), jnp.zeros(2))), 4)
        -4.4516
        >>> Gaussian(np.linspace(0.1, 0.2, 64).reshape(8, 8, 1)).per_pixel
        True
    """

    sigma: Number | Array = field(converter=as_deviation)

    def __post_init__(self):
        if np.ndim(self.sigma) not in (0, 1, 3):
            raise ValueError(
                "sigma: expected a number, or one for each pixel [h, w, c], got "
                f"{list(np.shape(self.sigma))}"
            )
        if self.per_pixel and concrete(self.sigma) and not np.all(self.sigma):
            raise ValueError("sigma: is 0 at some pixels: expected > 0 everywhere, such as 1/255")

    @property
    def per_pixel(self) -> bool:
        """Whether σ differs by pixel."""
        return np.ndim(self.sigma) == 3

    def log_prob(self, y, mean) -> jax.Array:
        """Σ −(y − mean)²/(2σ²) − log(σ√(2π)), σ > 0."""
        mean = jnp.asarray(mean)
        sigma = jnp.asarray(self.sigma, mean.dtype)
        return jnp.sum(-(((y - mean) / sigma) ** 2) / 2 - jnp.log(sigma) - np.log(2 * np.pi) / 2)

    def draw(self, key, mean) -> jax.Array:
        """mean + σ·n."""
        mean = jnp.asarray(mean)
        noise = jax.random.normal(key, mean.shape, mean.dtype)
        return mean + jnp.asarray(self.sigma, mean.dtype) * noise

    def residual(self, y, mean) -> jax.Array:
        """y − mean, divided by σ/c where σ differs by pixel, with the c of `whitening`."""
        mean = jnp.asarray(mean)
        if not self.per_pixel:
            return y - mean
        return standardised(y, mean, jnp.asarray(self.sigma, mean.dtype) ** 2)

    def variance(self, mean) -> jax.Array:
        """σ²."""
        mean = jnp.asarray(mean)
        return jnp.broadcast_to(jnp.asarray(self.sigma, mean.dtype) ** 2, mean.shape)

    def whitening(self) -> tuple[Array, Array]:
        """(c/σ, c): the weights that give y one deviation, c² the harmonic mean of σ²."""
        common = jnp.mean(jnp.asarray(self.sigma) ** -2.0) ** -0.5
        return common / self.sigma, common


def as_noise(sigma) -> Any:
    """What a user passes as sigma: a noise as it is, or the deviation of a Gaussian's."""
    if isinstance(sigma, Gaussian) and not sigma.per_pixel:
        return sigma.sigma
    return sigma if isinstance(sigma, Noise) else as_deviation(sigma)
