"""What a noise has."""

from abc import ABC, abstractmethod

import jax


class Noise(ABC):
    """p(y | mean) of a measurement y whose mean is A(x). A subclass is a pytree.

    Example:
        >>> import jax.numpy as jnp, jaxdiff as jd
        >>> @jd.pytree
        ... class Laplace(jd.noise.Noise):
        ...     scale: float
        ...     def log_prob(self, y, mean):
        ...         return -jnp.abs(y - mean).sum() / self.scale
        ...     def draw(self, key, mean):
        ...         return mean + self.scale * jax.random.laplace(key, mean.shape, mean.dtype)
        >>> float(Laplace(2.0).log_prob(jnp.ones(3), jnp.zeros(3)))
        -1.5
    """

    @abstractmethod
    def log_prob(self, y, mean) -> jax.Array:
        """log p(y | mean) of one measurement, up to a constant."""

    @abstractmethod
    def draw(self, key, mean) -> jax.Array:
        """A measurement whose mean is `mean`."""

    def residual(self, y, mean) -> jax.Array:
        """y − mean, of one deviation everywhere up to a common factor."""
        return y - mean
