"""Circular blur by FFT."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.operators.base import Linear
from jaxdiff.util.pytree import pytree, static


@pytree
class Blur(Linear):
    """Circular convolution of every channel with a kernel: A = F⁻¹ diag(K) F.

    The kernel is placed at the top left corner of an image of zeros and rolled by −⌊size/2⌋
    along each axis, for odd and for even sizes, so that its centre comes to the origin: as in
    the course. It is a convolution, not a correlation, and the kernel is used as it is.

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

    kernel: Any
    shape: tuple[int, int] = static()
    normalize: bool = static(default=False)

    def __post_init__(self):
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
        if self.normalize:
            if kernel.sum() <= 0:
                raise ValueError(f"kernel: its sum {kernel.sum():g} can't be normalised to 1")
            kernel = kernel / kernel.sum()
        padded = np.zeros(shape)
        padded[: kernel.shape[0], : kernel.shape[1]] = kernel
        padded = np.roll(padded, [-(s // 2) for s in kernel.shape], (0, 1))
        # The kernel as an image, not its small self: kernels of other sizes do not recompile.
        object.__setattr__(self, "kernel", padded)
        object.__setattr__(self, "shape", tuple(int(s) for s in shape))
        object.__setattr__(self, "normalize", False)

    def transfer(self, dtype):
        """K, the transform of the kernel, [H, W//2 + 1, 1]."""
        return jnp.fft.rfft2(jnp.asarray(self.kernel, dtype))[..., None]

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
