"""Lower resolution."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.operators.base import Linear
from jaxdiff.util.pytree import pytree, static

METHODS = ("box", "bicubic", "matlab")


@pytree
class Downsample(Linear):
    """Super-resolution: A = D_H ⊗ D_W, each axis made `factor` times shorter.

    "box": the mean over blocks of factor × factor pixels. "bicubic": Keys' kernel (a = −1/2)
    stretched by the factor, against aliasing, its weights renormalised at the border, as in
    `jax.image.resize(..., "cubic")` and Pillow. "matlab": the same kernel over an image that goes on as
    its mirror image, as in MATLAB's imresize, with which the papers' measurements are made.

    Args:
        factor: ≥ 1; it must divide the image's height and width.
        method: "box", "bicubic" or "matlab".

    Raises:
        ValueError: for another factor or method, or, at the call, sizes it does not divide.

    Source: Keys 1981 (IEEE TASSP 29(6)).

    Example:
        >>> Downsample(4)(np.ones((64, 64, 3))).shape
        (16, 16, 3)
    """

    factor: int = static()
    method: str = static(default="box")
    isometric = True

    def __post_init__(self):
        if not isinstance(self.factor, int | np.integer) or self.factor < 1:
            raise ValueError(f"factor: expected an integer ≥ 1, got {self.factor!r}")
        if self.method not in METHODS:
            raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {self.method!r}")

    def _matrix(self, size: int) -> np.ndarray:
        """D [size/factor, size]: rows sum to 1."""
        middle = (np.arange(size // self.factor) + 0.5) * self.factor - 0.5
        around = 2 * self.factor if self.method == "matlab" else 0
        places = np.arange(-around, size + around)
        d = np.abs(places - middle[:, None]) / self.factor
        if self.method == "box":
            weights = (d < 0.5) * 1.0
        else:
            near, far = 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
            weights = np.where(d < 1, near, np.where(d < 2, far, 0))
        matrix, mirrored = np.zeros((len(middle), size)), places % (2 * size)
        np.add.at(matrix.T, np.minimum(mirrored, 2 * size - 1 - mirrored), weights.T)
        return matrix / matrix.sum(1, keepdims=True)

    def input_shape(self, shape):
        return (*shape[:-3], shape[-3] * self.factor, shape[-2] * self.factor, shape[-1])

    def __call__(self, x) -> jax.Array:
        """Ax."""
        x = jnp.asarray(x)
        height, width = x.shape[-3:-1]
        if height % self.factor or width % self.factor:
            raise ValueError(
                f"expected an image whose sides {self.factor} divides, got {height}×{width}"
            )
        return _separable(self._matrix(height), self._matrix(width), x)

    def _decomposed(self, y, response) -> jax.Array:
        """V response(s) Uᵀ y, for the singular values s of A, products of those of its axes."""
        y = jnp.asarray(y)
        height, width = self.input_shape(y.shape)[-3:-1]
        u1, s1, v1 = np.linalg.svd(self._matrix(height), full_matrices=False)
        u2, s2, v2 = np.linalg.svd(self._matrix(width), full_matrices=False)
        s = jnp.asarray(s1[:, None] * s2, y.dtype)[..., None]
        return _separable(v1.T, v2.T, response(s) * _separable(u1.T, u2.T, y))

    def adjoint(self, y) -> jax.Array:
        """Aᵀy."""
        y = jnp.asarray(y)
        height, width = self.input_shape(y.shape)[-3:-1]
        return _separable(self._matrix(height).T, self._matrix(width).T, y)

    def pinv(self, y) -> jax.Array:
        """A⁺y."""
        return self._decomposed(y, lambda s: 1 / s)

    def spectral(self, function, x) -> jax.Array:
        """V f(s²) Vᵀx + f(0)·(x − VVᵀx)."""
        axes = [np.linalg.svd(self._matrix(n), full_matrices=False)[1:] for n in x.shape[-3:-1]]
        (s1, v1), (s2, v2) = axes
        power = jnp.asarray((s1[:, None] * s2) ** 2, x.dtype)[..., None]
        seen, none = _separable(v1, v2, x), function(jnp.zeros((), x.dtype))
        return none * x + _separable(v1.T, v2.T, (function(power) - none) * seen)

    def solve(self, residual, r2, s2) -> jax.Array:
        """Aᵀ(r²AAᵀ + s²I)⁻¹ residual = V s/(r²s² + s²) Uᵀ residual."""
        return self._decomposed(residual, lambda s: s / (r2 * s**2 + s2))


def _separable(rows, columns, x) -> jax.Array:
    """rows x columnsᵀ of every channel; the matrices are of the size alone, not of data."""
    precision = jax.lax.Precision.HIGHEST
    x = jnp.einsum("ih,...hwc->...iwc", jnp.asarray(rows, x.dtype), x, precision=precision)
    return jnp.einsum("jw,...iwc->...ijc", jnp.asarray(columns, x.dtype), x, precision=precision)
