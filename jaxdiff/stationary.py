"""Gaussians that are stationary: a matrix over colours at every spatial frequency."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxdiff import matrices
from jaxdiff.pytree import pytree


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
        return filtered(matrices.cholesky(self.matrices), eps)


def filtered(response, v) -> jax.Array:
    """F⁻¹ diag(response) F v for v [H, W, C], a matrix over colours at every frequency."""
    spectrum = matrices.apply(response, jnp.fft.rfft2(v, axes=(0, 1)))
    return jnp.fft.irfft2(spectrum, s=v.shape[:2], axes=(0, 1)).astype(v.dtype)
