"""Missing pixels."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.operators.base import Isometry
from jaxdiff.util.arrays import Array
from jaxdiff.util.pytree import pytree


@pytree
class Mask(Isometry):
    """Inpainting: A = diag(mask), the image with its missing pixels set to 0.

    A measurement has the image's shape; what it holds at missing pixels is ignored.

    Args:
        mask: [H, W], or [H, W, C] for one that differs by channel; True or 1 where a pixel is
            known, False or 0 where it is missing.

    Raises:
        ValueError: for another shape, other values, or a mask that hides everything.

    Example:
        >>> mask = Mask(np.arange(64).reshape(8, 8) % 2)
        >>> float(mask(jnp.ones((8, 8, 3))).mean())
        0.5
    """

    mask: Array
    pixelwise = True

    def __post_init__(self):
        mask = np.asarray(self.mask)
        if mask.ndim not in (2, 3) or 0 in mask.shape:
            raise ValueError(f"mask: expected [H, W] or [H, W, C], got {list(mask.shape)}")
        if not np.isin(mask, (0, 1)).all():
            raise ValueError("mask: expected 1 where a pixel is known and 0 where it is missing")
        if not mask.any():
            raise ValueError("mask: hides every pixel")
        mask = mask.astype(np.float32)
        return {"mask": mask[..., None] if mask.ndim == 2 else mask}

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W) of the image."""
        return self.mask.shape[-3:-1]

    def __call__(self, x) -> jax.Array:
        """Ax."""
        x = jnp.asarray(x)
        if x.shape[-3:-1] != self.shape or self.mask.shape[-1] not in (1, x.shape[-1]):
            channels = self.mask.shape[-1] if self.mask.shape[-1] > 1 else "C"
            raise ValueError(
                f"expected [..., {self.shape[0]}, {self.shape[1]}, {channels}], as the mask, "
                f"got {list(x.shape)}"
            )
        return x * jnp.asarray(self.mask, x.dtype)

    def adjoint(self, y) -> jax.Array:
        """Aᵀy = Ay."""
        return self(y)

    def project(self, y) -> jax.Array:
        """AA⁺y = Ay."""
        return self(y)
