"""Few random projections."""

from dataclasses import InitVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.fft import dctn, idctn

from jaxdiff.operators.base import Isometry
from jaxdiff.util.arrays import Array
from jaxdiff.util.pytree import pytree, static


@pytree
class CompressedSensing(Isometry):
    """A = R·DCT·diag(signs): random coefficients of the image with random signs, without a matrix.

    Each channel [H, W] gives the same ⌊HW/factor⌋ of them, [..., H, W, C] → [..., HW/factor, 1, C].
    AAᵀ = I.

    Args:
        factor: ≥ 1: pixels for each measured number.
        shape: (H, W) of the image.
        seed: of the signs and of the choice of coefficients.
        signs, rows: ±1 [H, W] and the chosen coefficients; by default drawn.

    Raises:
        ValueError: for another factor, or one that leaves nothing.

    Source: Do et al. 2012 (IEEE TSP 60(1)), "Fast and efficient compressive sensing using
    structurally random matrices".

    Example:
        >>> CompressedSensing(4, (64, 64))(np.ones((64, 64, 3))).shape
        (1024, 1, 3)
    """

    factor: int = static()
    shape: tuple[int, int] = static()
    seed: InitVar[int] = 0
    signs: Array | None = None
    rows: Array | None = None

    def __post_init__(self, seed):
        size = self.shape[0] * self.shape[1]
        if not isinstance(self.factor, int | np.integer) or not 1 <= self.factor <= size:
            raise ValueError(
                f"factor: expected an integer from 1 to {size}, such as 4, got {self.factor!r}"
            )
        if self.signs is not None and self.rows is not None:
            return None
        rng = np.random.default_rng(seed)
        signs = rng.choice([-1.0, 1.0], self.shape)
        rows = np.sort(rng.permutation(size)[: size // self.factor]).astype(np.int32)
        return {"signs": signs, "rows": rows}

    def input_shape(self, shape):
        return (*shape[:-3], *self.shape, shape[-1])

    def __call__(self, x) -> jax.Array:
        """Ax."""
        x = jnp.asarray(x)
        if x.shape[-3:-1] != self.shape:
            raise ValueError(f"expected images of {list(self.shape)}, got {list(x.shape)}")
        mixed = dctn(x * jnp.asarray(self.signs, x.dtype)[..., None], axes=(-3, -2), norm="ortho")
        chosen = mixed.reshape(*x.shape[:-3], -1, x.shape[-1])[..., self.rows, :]
        return chosen[..., None, :].astype(x.dtype)

    def adjoint(self, y) -> jax.Array:
        """Aᵀy."""
        y = jnp.asarray(y)
        shape = self.input_shape(y.shape)
        flat = jnp.zeros((*shape[:-3], shape[-3] * shape[-2], shape[-1]), y.dtype)
        mixed = flat.at[..., self.rows, :].set(y[..., 0, :]).reshape(shape)
        x = idctn(mixed, axes=(-3, -2), norm="ortho").astype(y.dtype)
        return x * jnp.asarray(self.signs, y.dtype)[..., None]
