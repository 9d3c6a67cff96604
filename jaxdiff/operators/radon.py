"""Tomography: line integrals from many sides."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.operators.base import Linear
from jaxdiff.util.arrays import Array
from jaxdiff.util.pytree import concrete, pytree, static


@pytree
class Radon(Linear):
    """Parallel-beam projections of the image: [..., H, W, C] → a sinogram [..., angles, detectors, C].

    The image is put between zeros as wide as its diagonal, turned about its middle (bilinear) and
    summed along its columns. A sum counts in longer sides of the image, so that an image in [0, 1]
    gives at most about √2. The adjoint is JAX's transpose of it, exact to rounding; `solve` and
    `pinv` go by conjugate gradients.

    Args:
        angles: degrees [A]; or a number of them ≥ 1, evenly over 180°.
        shape: (H, W) of the image.

    Raises:
        ValueError: for no angles or such that are not finite, another shape.

    Source: Radon 1917; `skimage.transform.radon(circle=False)` gives the same numbers, in pixels.

    Example:
        >>> Radon(60, (64, 64))(np.ones((64, 64, 3))).shape
        (60, 91, 3)
    """

    angles: Array | int
    shape: tuple[int, int] = static()

    def __post_init__(self):
        if not concrete(self.angles):
            return None
        angles = np.asarray(self.angles)
        if angles.ndim == 0 and angles.dtype.kind in "iu" and 1 <= angles <= 10_000:
            angles = np.arange(int(angles)) * (180 / int(angles))
        if angles.ndim != 1 or angles.size == 0 or angles.dtype.kind not in "fiu":
            raise ValueError(
                f"angles: expected degrees [A], or how many ≥ 1, such as 60, got {self.angles!r}"
            )
        if not np.isfinite(angles).all():
            raise ValueError("angles: hold NaN or infinite values")
        return {"angles": angles.astype(np.float64), "shape": tuple(map(int, self.shape))}

    @property
    def _side(self) -> int:
        """Of the square that is turned: the number of detectors."""
        longer = max(self.shape)
        return longer + int(np.ceil(np.sqrt(2) * longer - longer))

    def __call__(self, x) -> jax.Array:
        """Ax."""
        x = jnp.asarray(x)
        if x.shape[-3:-1] != self.shape:
            raise ValueError(f"expected images of {list(self.shape)}, got {list(x.shape)}")
        side, angles = self._side, jnp.deg2rad(jnp.asarray(self.angles, x.dtype))
        before = [side // 2 - n // 2 for n in self.shape]
        margins = [(b, side - n - b) for b, n in zip(before, self.shape)]
        pixels = jnp.pad(x, [(0, 0)] * (x.ndim - 3) + margins + [(0, 0)])
        pixels = jnp.moveaxis(pixels, (-3, -2), (0, 1)).reshape(side * side, -1)
        down, right = (g - side // 2 for g in np.mgrid[:side, :side].astype(x.dtype))

        def projection(angle):
            cos, sin = jnp.cos(angle), jnp.sin(angle)
            turned = _bilinear(pixels, cos * down - sin * right, sin * down + cos * right, side)
            return turned.reshape(side, side, -1).sum(0) / max(self.shape)

        sinogram = jax.lax.map(projection, angles)  # [A, detectors, what is not H and W]
        sinogram = sinogram.reshape(len(angles), side, *x.shape[:-3], x.shape[-1])
        return jnp.moveaxis(sinogram, (0, 1), (-3, -2))


def _bilinear(pixels, down, right, side):
    """Pixels [side², n] of a square between whole ones, from its middle [side²]; 0 outside."""
    total = 0
    top, left = jnp.floor(down), jnp.floor(right)
    for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        weight = (1 - jnp.abs(down - row)) * (1 - jnp.abs(right - column))
        row, column = (v + side // 2 for v in (row, column))
        inside = (row >= 0) & (row < side) & (column >= 0) & (column < side)
        place = jnp.where(inside, row * side + column, 0).astype(jnp.int32)
        total += jnp.where(inside, weight, 0).reshape(-1, 1) * pixels[place.ravel()]
    return total
