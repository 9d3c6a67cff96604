"""Laplacian noise: Gaussian's heavier-tailed sibling."""

import jax
import jax.numpy as jnp

from jaxdiff.noise.base import Noise
from jaxdiff.util.arrays import Number, positive
from jaxdiff.util.pytree import field, pytree


@pytree
class Laplace(Noise):
    """y = mean + b·n, n of density exp(−|n|)/2: many small errors and some large.

    Args:
        scale: b > 0 in the measurement's units; the deviation is √2·b.

    Raises:
        ValueError: for another b.

    Example:
        >>> round(float(Laplace(0.5).log_prob(jnp.ones(2), jnp.zeros(2))), 4)
        -4.0
    """

    scale: Number = field(converter=positive("scale", "10/255"))

    def log_prob(self, y, mean) -> jax.Array:
        """Σ −|y − mean|/b − log 2b."""
        mean = jnp.asarray(mean)
        b = jnp.asarray(self.scale, mean.dtype)
        return jnp.sum(-jnp.abs(y - mean) / b - jnp.log(2 * b))

    def draw(self, key, mean) -> jax.Array:
        """mean + b·n."""
        mean = jnp.asarray(mean)
        noise = jax.random.laplace(key, mean.shape, mean.dtype)
        return mean + jnp.asarray(self.scale, mean.dtype) * noise

    def variance(self, mean) -> jax.Array:
        """2b²."""
        mean = jnp.asarray(mean)
        return jnp.full_like(mean, 2 * jnp.asarray(self.scale, mean.dtype) ** 2)
