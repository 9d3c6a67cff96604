"""The noise of a real sensor: of the light, and of reading it out."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from jaxdiff.noise.base import Noise, standardised
from jaxdiff.noise.poisson import DARKEST, log_pmf
from jaxdiff.util.arrays import Number, positive
from jaxdiff.util.pytree import field, pytree

TERMS = 32  # of the sum on either side of its largest
DEVIATIONS = 9  # that they reach


@pytree
class PoissonGaussian(Noise):
    """y = k/peak + σ·n, k ~ Poisson(peak·mean), n ~ N(0, 1): the variance is mean/peak + σ².

    Args:
        peak: the mean count > 0 of a pixel that is 1.
        sigma: σ > 0 of the read-out, in the measurement's units.

    Raises:
        ValueError: for another peak or σ; `Poisson` is the noise of σ = 0.

    Source: Foi et al. 2008 (IEEE TIP 17(10)), whose Gaussian of the same variance this likelihood
    does not take: it is the exact one.

    Example:
        >>> noise = PoissonGaussian(100, 0.02)
        >>> round(float(noise.draw(jax.random.key(0), jnp.full(10_000, 0.25)).std()), 3)
        0.054
    """

    peak: Number = field(converter=positive("peak", "100"))
    sigma: Number = field(converter=positive("sigma", "2/255"))

    def _parameters(self, dtype):
        return jnp.asarray(self.peak, dtype), jnp.asarray(self.sigma, dtype)

    def log_prob(self, y, mean) -> jax.Array:
        """Σ log Σ_k Poisson(k; peak·mean)·N(y; k/peak, σ²).

        The sum over counts goes over `DEVIATIONS` on either side of its largest term. Where these
        are more counts than terms it takes each so-manieth: the terms are as smooth as a Gaussian,
        of which such a sum is exact to rounding.
        """
        mean = jnp.asarray(mean)
        peak, sigma = self._parameters(mean.dtype)
        rate = jnp.maximum(peak * mean, DARKEST)
        largest, width = jax.lax.stop_gradient(_largest_term(peak * y, rate, peak * sigma))
        stride = jnp.ceil(jnp.maximum(DEVIATIONS * width / TERMS, 1))

        def term(i):
            k = jnp.round(largest) + i * stride
            deviation = (y - k / peak) / sigma
            log = log_pmf(jnp.maximum(k, 0), rate) - deviation**2 / 2
            return jnp.where(k >= 0, log, -jnp.inf)

        terms = jax.vmap(term)(jnp.arange(-TERMS, TERMS + 1, dtype=mean.dtype))
        total = logsumexp(terms, 0) + jnp.log(stride)
        return jnp.sum(total - jnp.log(sigma) - np.log(2 * np.pi) / 2)

    def draw(self, key, mean) -> jax.Array:
        """Counts over the peak, and σ·n."""
        mean = jnp.asarray(mean)
        peak, sigma = self._parameters(mean.dtype)
        light, readout = jax.random.split(key)
        counts = jax.random.poisson(light, jnp.maximum(peak * mean, 0)).astype(mean.dtype)
        return counts / peak + sigma * jax.random.normal(readout, mean.shape, mean.dtype)

    def residual(self, y, mean) -> jax.Array:
        """(y − mean)/√(mean/peak + σ²), up to a common factor."""
        mean = jnp.asarray(mean)
        return standardised(y, mean, self.variance(mean))

    def variance(self, mean) -> jax.Array:
        """mean/peak + σ²."""
        mean = jnp.asarray(mean)
        peak, sigma = self._parameters(mean.dtype)
        return jnp.maximum(mean, 0) / peak + sigma**2


def _largest_term(count, rate, sigma):
    """Where Poisson(k; rate)·N(count; k, σ²) is largest over k, and how wide it is there.

    The derivative of its logarithm, with Stirling's log(k + ½), is concave in u = log(k + ½): Newton's
    steps from the right of the root go down to it.
    """
    u = jnp.log(jnp.maximum(count, rate) + 1)
    for _ in range(12):
        k = jnp.exp(u) - 0.5
        u += (jnp.log(rate) - u - (k - count) / sigma**2) / (1 + jnp.exp(u) / sigma**2)
    k = jnp.exp(u) - 0.5
    return k, (1 / (k + 1) + 1 / sigma**2) ** -0.5
