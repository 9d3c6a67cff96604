"""Intensities without phases."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.operators.base import Operator
from jaxdiff.util.pytree import pytree, static


@pytree
class PhaseRetrieval(Operator):
    """A(x) = |F P x|: the Fourier amplitudes of the image between zeros, F unitary.

    P adds oversample·N/8 zeros on both sides of N pixels, as in the papers: their `oversample = 2` is
    1.5 times the side. An image turned by 180°, or moved among the zeros, has the same amplitudes.

    Args:
        oversample: an even integer ≥ 2; 8 must divide its product with either side of an image.

    Raises:
        ValueError: for another oversampling, or, at the call, a side that it does not suit.

    Source: Fienup 1982 (Applied Optics 21(15)); Chung et al. 2022 (arXiv 2209.14687), appendix D,
    and Zhang et al. 2024 (DAPS, arXiv 2407.01521).

    Example:
        >>> PhaseRetrieval(2)(np.ones((64, 64, 3))).shape
        (96, 96, 3)
    """

    oversample: int = static(default=2)
    ambiguous = True

    def __post_init__(self):
        value = self.oversample
        if not isinstance(value, int | np.integer) or value < 2 or value % 2:
            raise ValueError(f"oversample: expected an even integer ≥ 2, such as 2, got {value!r}")

    def input_shape(self, shape):
        height, width = (4 * n // (4 + self.oversample) for n in shape[-3:-1])
        return (*shape[:-3], height, width, shape[-1])

    def __call__(self, x) -> jax.Array:
        """A(x)."""
        x = jnp.asarray(x)
        sides = x.shape[-3:-1]
        if any(self.oversample * n % 8 for n in sides):
            raise ValueError(
                f"oversample: {self.oversample} suits sides of which it makes multiples of 8, got "
                f"{sides[0]}×{sides[1]}: crop the image to multiples of 4"
            )
        margins = [(self.oversample * n // 8,) * 2 for n in sides]
        padded = jnp.pad(x, [(0, 0)] * (x.ndim - 3) + margins + [(0, 0)])
        dtype = jnp.promote_types(x.dtype, jnp.float32)
        amplitudes = jnp.abs(jnp.fft.fft2(padded.astype(dtype), axes=(-3, -2), norm="ortho"))
        return jnp.fft.fftshift(amplitudes, axes=(-3, -2)).astype(x.dtype)
