"""A camera that sees less than the picture."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.operators.base import Isometry
from jaxdiff.util.pytree import pytree, static


def _as_margin(value) -> tuple[tuple[int, int], tuple[int, int]]:
    """((top, bottom), (left, right)) of what a user passes."""
    sides = np.asarray(value)
    if sides.shape not in ((), (2, 2)) or sides.dtype.kind not in "iu" or (sides < 0).any():
        raise ValueError(
            f"margin: expected an integer ≥ 0, or ((top, bottom), (left, right)), got {value!r}"
        )
    (top, bottom), (left, right) = np.broadcast_to(sides, (2, 2)).tolist()
    return (top, bottom), (left, right)


@pytree
class Crop(Isometry):
    """The image without a margin; Aᵀ surrounds with zeros, and AAᵀ = I.

    `Crop(m) @ Blur(kernel, shape)` is the blur of a real camera, which is not circular: pixels
    near the border get light from outside. It is exact where m is at least half the kernel.

    Args:
        margin: pixels ≥ 0 on all four sides, or ((top, bottom), (left, right)).

    Raises:
        ValueError: for another margin or, at the call, an image of which nothing is left.

    Example:
        >>> Crop(8)(np.ones((64, 64, 3))).shape, Crop(((0, 4), (2, 0)))(np.ones((64, 64, 3))).shape
        ((48, 48, 3), (60, 62, 3))
    """

    margin: Any = static(converter=_as_margin)

    def input_shape(self, shape):
        rows, columns = self.margin
        return (*shape[:-3], shape[-3] + sum(rows), shape[-2] + sum(columns), shape[-1])

    def __call__(self, x) -> jax.Array:
        """Ax."""
        x, ((top, bottom), (left, right)) = jnp.asarray(x), self.margin
        height, width = x.shape[-3:-1]
        if height <= top + bottom or width <= left + right:
            raise ValueError(
                f"a margin of {self.margin} leaves nothing of an image of {height}×{width}"
            )
        return x[..., top : height - bottom, left : width - right, :]

    def adjoint(self, y) -> jax.Array:
        """Aᵀy."""
        y = jnp.asarray(y)
        return jnp.pad(y, [(0, 0)] * (y.ndim - 3) + [*self.margin, (0, 0)])
