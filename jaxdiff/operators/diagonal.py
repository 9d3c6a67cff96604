"""A weight for each pixel."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.operators.base import Linear
from jaxdiff.util.arrays import Array
from jaxdiff.util.pytree import field, pytree


def _as_weights(value):
    if isinstance(value, jax.Array):  # also a tracer: such as the weights of a noise
        return value
    weights = np.asarray(value)
    if weights.ndim != 3 or weights.dtype.kind not in "fiub" or not np.isfinite(weights).all():
        raise ValueError(f"weights: expected finite numbers [H, W, C], got {list(weights.shape)}")
    if not weights.any():
        raise ValueError("weights: are all 0, which leaves nothing")
    return weights.astype(np.float64)


@pytree
class Diagonal(Linear):
    """A = diag(weights): a vignette, an exposure that varies.

    Args:
        weights: [H, W, C], or [H, W, 1] for all channels.

    Raises:
        ValueError: for another shape, or weights that are all 0 or not finite.

    Example:
        >>> vignette = Diagonal(np.linspace(0.5, 1, 64).reshape(8, 8, 1))
        >>> round(float(vignette(np.ones((8, 8, 3))).mean()), 4)
        0.75
    """

    weights: Array = field(converter=_as_weights)
    pixelwise = True

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W) of the image."""
        return self.weights.shape[-3:-1]

    def __call__(self, x) -> jax.Array:
        """Ax."""
        x = jnp.asarray(x)
        return x * jnp.asarray(self.weights, x.dtype)

    def adjoint(self, y) -> jax.Array:
        """Aᵀy = Ay."""
        return self(y)

    def pinv(self, y) -> jax.Array:
        """A⁺y: pixels of weight 0 stay 0."""
        y = jnp.asarray(y)
        w = jnp.asarray(self.weights, y.dtype)
        return jnp.where(w == 0, 0, y / jnp.where(w == 0, 1, w))

    def solve(self, residual, r2, s2) -> jax.Array:
        """Aᵀ(r²AAᵀ + s²I)⁻¹ residual = weights·residual/(r²·weights² + s²)."""
        residual = jnp.asarray(residual)
        w = jnp.asarray(self.weights, residual.dtype)
        return w * residual / (r2 * w**2 + s2)

    def near(self, dtype):
        """Q = A⁺ᵀ; none where it hides pixels."""
        w = jnp.asarray(self.weights, dtype)
        return Diagonal(1 / w), jnp.ones((), dtype)
