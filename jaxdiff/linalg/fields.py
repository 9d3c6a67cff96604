"""Gaussian images: stationary ones, and such whose deviation follows a picture's contrast."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.linalg import small_matrices
from jaxdiff.util.pytree import pytree


@pytree
class Stationary:
    """N(0, Σ) with Σ = F* diag(matrices) F, F the orthonormal 2-D FFT: stationary images.

    `matrices` [H, W//2 + 1, C, C]: at every frequency of `rfft2` a symmetric matrix over colours.
    """

    matrices: Any

    def apply(self, v) -> jax.Array:
        """Σv of v [H, W, C]."""
        return filtered(self.matrices, v)

    def draw(self, eps) -> jax.Array:
        """Σ^½ε: a sample, for ε ~ N(0, I) [H, W, C]."""
        return filtered(small_matrices.cholesky(self.matrices), eps)


@pytree
class Modulated:
    """N(0, MΣM), Σ = F* diag(matrices) F stationary and M = diag(scale), scale [H, W, 1] around 1."""

    scale: Any
    matrices: Any

    def apply(self, v) -> jax.Array:
        """MΣMv of v [H, W, C]."""
        return self.scale * Stationary(self.matrices).apply(self.scale * v)

    def draw(self, eps) -> jax.Array:
        """MΣ^½ε: a sample, for ε ~ N(0, I) [H, W, C]."""
        return self.scale * Stationary(self.matrices).draw(eps)

    def scaled(self, c) -> "Modulated":
        """N(0, cMΣM)."""
        return Modulated(jnp.sqrt(c) * self.scale, self.matrices)


def contrast(x) -> jax.Array:
    """log(|∇x|² + 1e-4) of the mean over colours, blurred by one pixel: [..., H, W] of [..., H, W, C].

    Differences are over two pixels; the picture continues as its border. 1e-4 is about one level
    of 255 in [-1, 1]: flat regions are not flatter than that.
    """
    grey = jnp.mean(x, -1)
    gradient = sum(_along(grey, axis, (-1, 0, 1)) ** 2 for axis in (-2, -1))
    for axis in (-2, -1):
        gradient = _along(gradient, axis, (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16))
    return jnp.log(gradient + 1e-4)


def _along(x, axis, weights):
    """Correlation with `weights` along one axis, continued by its border."""
    half = len(weights) // 2
    pad = [(0, 0)] * x.ndim
    pad[axis] = (half, half)
    padded = jnp.pad(x, pad, mode="edge")
    size = x.shape[axis]
    return sum(
        w * jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i, w in enumerate(weights) if w
    )


def fourier(v) -> jax.Array:
    """F v, F unitary: the half of `fft2` that a real v [H, W, C] has, scaled to keep its norm."""
    weights = jnp.sqrt(jnp.asarray(half_weights(v.shape[1]), v.dtype))[:, None]
    return weights * jnp.fft.rfft2(v, axes=(0, 1), norm="ortho")


def inverse_fourier(u, shape: tuple[int, int]) -> jax.Array:
    """F⁻¹ u = Fᵀu [H, W, C] of `fourier`, for images of `shape` (H, W)."""
    weights = jnp.sqrt(jnp.asarray(half_weights(shape[1]), u.real.dtype))[:, None]
    return jnp.fft.irfft2(u / weights, s=shape, axes=(0, 1), norm="ortho")


def half_weights(width: int) -> np.ndarray:
    """How often each column of `rfft2` occurs in `fft2`: twice, where its conjugate is left out."""
    weights = np.full(width // 2 + 1, 2.0)
    weights[0] = 1
    if width % 2 == 0:
        weights[-1] = 1
    return weights


def filtered(response, v) -> jax.Array:
    """F⁻¹ diag(response) F v for v [H, W, C], a matrix over colours at every frequency."""
    spectrum = small_matrices.apply(response, jnp.fft.rfft2(v, axes=(0, 1)))
    return jnp.fft.irfft2(spectrum, s=v.shape[:2], axes=(0, 1)).astype(v.dtype)
