"""Lost colour."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.operators.base import Linear
from jaxdiff.util.arrays import Array
from jaxdiff.util.pytree import field, pytree


@pytree
class Grey(Linear):
    """Colourisation: A sums the channels with weights, [..., H, W, C] → [..., H, W, 1].

    Args:
        weights: [C], by default the luma of ITU-R BT.601, which Pillow's mode "L" uses.

    Raises:
        ValueError: for other weights or, at the call, another number of channels.

    Example:
        >>> Grey()(np.ones((8, 8, 3))).shape
        (8, 8, 1)
    """

    weights: Array = field(
        default_factory=lambda: np.array((0.299, 0.587, 0.114)),
        converter=lambda weights: np.asarray(weights, np.float64),
    )
    isometric = True

    def __post_init__(self):
        weights = self.weights
        if weights.ndim != 1 or not (np.isfinite(weights).all() and weights.any()):
            raise ValueError(f"weights: expected [C] finite numbers, got {self.weights!r}")

    def input_shape(self, shape):
        return (*shape[:-1], self.weights.shape[-1])

    def __call__(self, x) -> jax.Array:
        """Ax."""
        x = jnp.asarray(x)
        if x.shape[-1] != self.weights.shape[-1]:
            raise ValueError(
                f"expected an image of {self.weights.shape[-1]} channels, got {list(x.shape)}"
            )
        return (x * jnp.asarray(self.weights, x.dtype)).sum(-1, keepdims=True)

    def adjoint(self, y) -> jax.Array:
        """Aᵀy."""
        y = jnp.asarray(y)
        return y * jnp.asarray(self.weights, y.dtype)

    def _power(self, dtype):
        return jnp.sum(jnp.asarray(self.weights, dtype) ** 2)  # AAᵀ = ‖weights‖²·I

    def pinv(self, y) -> jax.Array:
        """A⁺y."""
        y = jnp.asarray(y)
        return self.adjoint(y) / self._power(y.dtype)

    def spectral(self, function, x) -> jax.Array:
        """f(‖weights‖²)·A⁺Ax + f(0)·(x − A⁺Ax)."""
        power, seen = self._power(x.dtype), self.pinv(self(x))
        return function(power) * seen + function(0 * power) * (x - seen)

    def solve(self, residual, r2, s2) -> jax.Array:
        """Aᵀ(r²AAᵀ + s²I)⁻¹ residual = Aᵀ residual/(r²‖weights‖² + s²)."""
        residual = jnp.asarray(residual)
        return self.adjoint(residual) / (r2 * self._power(residual.dtype) + s2)
