"""What a noise has."""

from abc import ABC, abstractmethod

import jax
import jax.numpy as jnp


class Noise(ABC):
    """p(y | mean) of a measurement y whose mean is A(x). A subclass is a pytree.

    Example:
        >>> import jaxdiff as jd
        >>> @jd.pytree
        ... class Cauchy(jd.noise.Noise):
        ...     scale: float
        ...     def log_prob(self, y, mean):
        ...         return -jnp.log1p(((y - mean) / self.scale) ** 2).sum()
        ...     def draw(self, key, mean):
        ...         return mean + self.scale * jax.random.cauchy(key, mean.shape, mean.dtype)
        >>> round(float(Cauchy(2.0).log_prob(jnp.full(2, 2.0), jnp.zeros(2))), 4)
        -1.3863
    """

    @abstractmethod
    def log_prob(self, y, mean) -> jax.Array:
        """log p(y | mean) of one measurement, up to a constant; those of `jd.noise` leave none out."""

    @abstractmethod
    def draw(self, key, mean) -> jax.Array:
        """A measurement whose mean is `mean`."""

    def residual(self, y, mean) -> jax.Array:
        """y − mean, of one deviation everywhere up to a common factor."""
        return y - mean

    def variance(self, mean) -> jax.Array:
        """Var[y | mean] of each pixel.

        Raises:
            TypeError: of a noise that does not say, or has none.
        """
        raise TypeError(
            f"sigma: {type(self).__name__} has no variance(mean), which this method needs: DPS takes any "
            "jd.noise, as DAPS, PnPDM and REDDiff do"
        )


def standardised(y, mean, variance) -> jax.Array:
    """w·(y − mean) with w ∝ variance^(−1/2) of mean square 1: a residual of one deviation.

    w is not differentiated, so that −∇‖w·(y − mean)‖²/2 is, up to a factor, Σ (y − mean)/variance ·
    ∇mean: the score of Poisson and Gaussian noise.
    """
    precision = jax.lax.stop_gradient(1 / variance)
    return jnp.sqrt(precision / precision.mean()) * (y - mean)
