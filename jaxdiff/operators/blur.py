"""Circular blur by FFT."""

from dataclasses import InitVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.operators.base import Linear
from jaxdiff.util.arrays import Array
from jaxdiff.util.pytree import pytree, static


@pytree
class Blur(Linear):
    """Circular convolution of every channel with a kernel: A = F⁻¹ diag(K) F.

    The kernel's pixel ⌊size/2⌋ is its centre, for odd and for even sizes, as in the course. It is
    a convolution, not a correlation, and the kernel is used as it is.

    Args:
        kernel: [h, w], real.
        shape: (H, W) of the image.
        normalize: divide the kernel by its sum first.

    Raises:
        ValueError: for a kernel that is not 2-D, larger than the image, holds NaN or infinite
            values, or is to be normalised and sums to zero or less.

    Example:
        >>> blur = Blur(np.ones((3, 3)) / 9, (8, 8))
        >>> blur(jnp.ones((8, 8, 3))).shape
        (8, 8, 3)
    """

    kernel: Array
    shape: tuple[int, int] = static()
    normalize: InitVar[bool] = False

    def __post_init__(self, normalize):
        kernel = np.asarray(self.kernel)
        shape = tuple(self.shape)
        if len(shape) != 2 or not all(isinstance(s, int | np.integer) and s > 0 for s in shape):
            raise ValueError(f"shape: expected the image's (height, width), got {self.shape!r}")
        if kernel.ndim != 2 or kernel.size == 0 or kernel.dtype.kind not in "fiub":
            raise ValueError(
                f"kernel: expected a real array [h, w], got {kernel.dtype} {list(kernel.shape)}"
            )
        if kernel.shape[0] > shape[0] or kernel.shape[1] > shape[1]:
            raise ValueError(
                f"kernel: {kernel.shape[0]}×{kernel.shape[1]} is larger than the image's "
                f"{shape[0]}×{shape[1]}: crop or shrink the kernel"
            )
        kernel = kernel.astype(np.float64)
        if not np.isfinite(kernel).all():
            raise ValueError("kernel: holds NaN or infinite values")
        if normalize:
            if kernel.sum() <= 0:
                raise ValueError(f"kernel: its sum {kernel.sum():g} can't be normalised to 1")
            kernel = kernel / kernel.sum()
        # As an image, its centre in the middle: kernels of other sizes do not recompile, and what
        # is stored is a kernel that gives the same blur.
        before = [n // 2 - k // 2 for n, k in zip(shape, kernel.shape)]
        after = [n - k - b for n, k, b in zip(shape, kernel.shape, before)]
        padded = np.pad(kernel, list(zip(before, after)))
        return {"kernel": padded, "shape": tuple(int(s) for s in shape)}

    @property
    def reach(self) -> tuple[int, int]:
        """From how many pixels away, in rows and in columns, a pixel gets light."""
        kernel = np.asarray(self.kernel) != 0
        rows, columns = (np.flatnonzero(kernel.any(axis)) for axis in (1, 0))
        return tuple(
            int(np.abs(places - n // 2).max(initial=0))
            for places, n in zip((rows, columns), self.shape)
        )

    def transfer(self, dtype):
        """K, the transform of the kernel with its centre at the origin, [H, W//2 + 1, 1]."""
        centred = jnp.roll(jnp.asarray(self.kernel, dtype), [-(n // 2) for n in self.shape], (0, 1))
        return jnp.fft.rfft2(centred)[..., None]

    def factors(self, dtype):
        """Nothing follows it."""
        return None, self.transfer(dtype)

    def _apply(self, x, response):
        """F⁻¹ diag(response(K)) F x."""
        x = jnp.asarray(x)
        if x.shape[-3:-1] != self.shape:
            raise ValueError(
                f"expected [..., {self.shape[0]}, {self.shape[1]}, C], got {list(x.shape)}"
            )
        dtype = jnp.promote_types(x.dtype, jnp.float32)
        spectrum = response(self.transfer(dtype)) * jnp.fft.rfft2(x.astype(dtype), axes=(-3, -2))
        return jnp.fft.irfft2(spectrum, s=self.shape, axes=(-3, -2)).astype(x.dtype)

    def __call__(self, x) -> jax.Array:
        """Ax."""
        return self._apply(x, lambda k: k)

    def adjoint(self, y) -> jax.Array:
        """Aᵀy: ⟨Ax, y⟩ = ⟨x, Aᵀy⟩."""
        return self._apply(y, jnp.conj)

    def pinv(self, y) -> jax.Array:
        """A⁺y: frequencies at which |K| is below rounding of its largest value are dropped."""

        def response(k):
            power = jnp.abs(k) ** 2
            keep = power > power.max() * jnp.finfo(power.dtype).eps ** 2 * max(self.shape) ** 2
            return jnp.where(keep, jnp.conj(k) / jnp.where(keep, power, 1), 0)

        return self._apply(y, response)

    def solve(self, residual, r2, s2) -> jax.Array:
        """Aᵀ(r²AAᵀ + s²I)⁻¹ residual = F⁻¹ diag(K*/(r²|K|² + s²)) F residual; s² > 0."""
        return self._apply(residual, lambda k: jnp.conj(k) / (r2 * jnp.abs(k) ** 2 + s2))
