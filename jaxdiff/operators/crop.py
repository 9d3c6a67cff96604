"""A camera that sees less than the picture."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.operators.base import Linear
from jaxdiff.util.pytree import pytree, static


@pytree
class Crop(Linear):
    """The image without a margin on all four sides; Aᵀ surrounds with zeros, and AAᵀ = I.

    `Crop(m) @ Blur(kernel, shape)` is the blur of a real camera, which is not circular: pixels
    near the border get light from outside. It is exact where m is at least half the kernel.

    Args:
        margin: pixels ≥ 0.

    Raises:
        ValueError: for another margin or, at the call, an image of which nothing is left.

    Example:
        >>> Crop(8)(np.ones((64, 64, 3))).shape
        (48, 48, 3)
    """

    margin: int = static()
    isometric = True

    def __post_init__(self):
        if not isinstance(self.margin, int | np.integer) or self.margin < 0:
            raise ValueError(f"margin: expected an integer ≥ 0, got {self.margin!r}")

    def input_shape(self, shape):
        m = 2 * self.margin
        return (*shape[:-3], shape[-3] + m, shape[-2] + m, shape[-1])

    def __call__(self, x) -> jax.Array:
        """Ax."""
        x, m = jnp.asarray(x), self.margin
        height, width = x.shape[-3:-1]
        if min(height, width) <= 2 * m:
            raise ValueError(f"a margin of {m} leaves nothing of an image of {height}×{width}")
        return x[..., m : height - m, m : width - m, :]

    def adjoint(self, y) -> jax.Array:
        """Aᵀy."""
        y = jnp.asarray(y)
        margin = (self.margin, self.margin)
        return jnp.pad(y, [(0, 0)] * (y.ndim - 3) + [margin, margin, (0, 0)])

    def pinv(self, y) -> jax.Array:
        """A⁺y = Aᵀy."""
        return self.adjoint(y)

    def solve(self, residual, r2, s2) -> jax.Array:
        """Aᵀ(r²AAᵀ + s²I)⁻¹ residual = Aᵀ residual/(r² + s²)."""
        return self.adjoint(residual) / (r2 + s2)
