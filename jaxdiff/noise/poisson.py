"""Shot noise: a camera that counts photons."""

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln, xlogy

from jaxdiff.noise.base import Noise, standardised
from jaxdiff.util.arrays import Number, positive
from jaxdiff.util.pytree import field, pytree

DARKEST = 1e-12  # the mean count that black, and what is darker, has in a likelihood


@pytree
class Poisson(Noise):
    """y = k/peak, k ~ Poisson(peak·mean): the variance is mean/peak.

    A mean below 0, which an operator may give, counts as 0.

    Args:
        peak: the mean count > 0 of a pixel that is 1: few are noisy, 10,000 hardly.

    Raises:
        ValueError: for another peak.

    Example:
        >>> round(float(Poisson(1.0).log_prob(jnp.zeros(2), jnp.ones(2))), 4)
        -2.0
    """

    peak: Number = field(converter=positive("peak", "100"))

    def log_prob(self, y, mean) -> jax.Array:
        """Σ k·log λ − λ − log k!, k = peak·y and λ = peak·mean: the probability of the counts."""
        mean = jnp.asarray(mean)
        peak = jnp.asarray(self.peak, mean.dtype)
        return jnp.sum(log_pmf(peak * y, peak * mean))

    def draw(self, key, mean) -> jax.Array:
        """Counts over the peak."""
        mean = jnp.asarray(mean)
        peak = jnp.asarray(self.peak, mean.dtype)
        return jax.random.poisson(key, jnp.maximum(peak * mean, 0)).astype(mean.dtype) / peak

    def residual(self, y, mean) -> jax.Array:
        """(y − mean)/√mean up to a common factor; what is darker than one photon counts as one."""
        mean = jnp.asarray(mean)
        return standardised(y, mean, self.variance(mean))

    def variance(self, mean) -> jax.Array:
        """mean/peak; what is darker than one photon counts as one."""
        mean = jnp.asarray(mean)
        peak = jnp.asarray(self.peak, mean.dtype)
        return jnp.maximum(mean, 1 / peak) / peak


def log_pmf(count, rate) -> jax.Array:
    """log of a Poisson variable's probability, at counts that need not be whole."""
    rate = jnp.maximum(rate, DARKEST)
    return xlogy(count, rate) - rate - gammaln(count + 1)
