"""What a sensor makes of light, pixel by pixel: clipped ranges and curves."""

import jax
import jax.numpy as jnp

from jaxdiff.operators.base import Operator
from jaxdiff.util.arrays import Number, positive
from jaxdiff.util.pytree import field, pytree

DARK = 1e-6  # below, a curve is the straight line to 0: a root has an infinite slope there


@pytree
class HDR(Operator):
    """A(x) = clip(range·(x − ½) + ½, 0, 1): the middle 1/range of the brightnesses, stretched.

    In [-1, 1] it is clip(range·x, −1, 1), the papers' high dynamic range task. What is clipped has no
    gradient.

    Args:
        range: > 0; 2 in the papers.

    Raises:
        ValueError: for another range.

    Source: Zhang et al. 2024 (DAPS, arXiv 2407.01521), appendix.

    Example:
        >>> HDR(2)(jnp.array([0.125, 0.5, 0.625, 1.0])).tolist()
        [0.0, 0.5, 0.75, 1.0]
    """

    range: Number = field(default=2.0, converter=positive("range", "2"))
    pixelwise = True

    def __call__(self, x) -> jax.Array:
        """A(x)."""
        x = jnp.asarray(x)
        return jnp.clip(jnp.asarray(self.range, x.dtype) * (x - 0.5) + 0.5, 0, 1)


@pytree
class Saturate(Operator):
    """A(x) = clip(gain·x, 0, 1): too long an exposure, whose lights are lost.

    Args:
        gain: > 0; nothing is lost up to 1.

    Raises:
        ValueError: for another gain.

    Example:
        >>> Saturate(2.0)(jnp.array([0.25, 0.75])).tolist()
        [0.5, 1.0]
    """

    gain: Number = field(default=2.0, converter=positive("gain", "2"))
    pixelwise = True

    def __call__(self, x) -> jax.Array:
        """A(x)."""
        x = jnp.asarray(x)
        return jnp.clip(jnp.asarray(self.gain, x.dtype) * x, 0, 1)


@pytree
class Gamma(Operator):
    """A(x) = x^γ, and below 1e-6 the straight line through 0: of linear light for γ = 2.2.

    Args:
        exponent: γ > 0; 1/2.2 is a display's encoding.

    Raises:
        ValueError: for another γ.

    Example:
        >>> Gamma(2.0)(jnp.array([0.0, 0.5])).tolist()
        [0.0, 0.25]
    """

    exponent: Number = field(default=2.2, converter=positive("exponent", "2.2"))
    pixelwise = True

    def __call__(self, x) -> jax.Array:
        """A(x)."""
        x = jnp.asarray(x)
        gamma = jnp.asarray(self.exponent, x.dtype)
        line = DARK ** (gamma - 1) * x
        return jnp.where(x > DARK, jnp.maximum(x, DARK) ** gamma, line)
