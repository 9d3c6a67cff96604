"""A sensor behind a colour filter array."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.operators.base import Isometry
from jaxdiff.util.pytree import pytree, static


@pytree
class Demosaic(Isometry):
    """Of each pixel the one colour that its filter lets through, [..., H, W, 3] → [..., H, W, 1].

    AAᵀ = I.

    Args:
        pattern: the filters of a 2×2 block by row: "RGGB", "BGGR", "GRBG" or "GBRG".

    Raises:
        ValueError: for another pattern or, at the call, images that are not RGB.

    Source: Bayer 1976 (US patent 3,971,065).

    Example:
        >>> Demosaic("RGGB")(np.ones((8, 8, 3))).shape
        (8, 8, 1)
    """

    pattern: str = static(default="RGGB")

    def __post_init__(self):
        if self.pattern not in ("RGGB", "BGGR", "GRBG", "GBRG"):
            raise ValueError(f"pattern: expected RGGB, BGGR, GRBG or GBRG, got {self.pattern!r}")

    def _filters(self, shape, dtype):
        """[H, W, 3]: 1 where a pixel sees a colour."""
        block = np.array([[c == colour for colour in "RGB"] for c in self.pattern], float)
        height, width = shape[-3:-1]
        tiles = np.tile(block.reshape(2, 2, 3), (-(-height // 2), -(-width // 2), 1))
        return jnp.asarray(tiles[:height, :width], dtype)

    def input_shape(self, shape):
        return (*shape[:-1], 3)

    def __call__(self, x) -> jax.Array:
        """Ax."""
        x = jnp.asarray(x)
        if x.shape[-1] != 3:
            raise ValueError(f"expected an image of 3 channels, got {list(x.shape)}")
        return (x * self._filters(x.shape, x.dtype)).sum(-1, keepdims=True)

    def adjoint(self, y) -> jax.Array:
        """Aᵀy."""
        y = jnp.asarray(y)
        return y * self._filters(y.shape, y.dtype)
