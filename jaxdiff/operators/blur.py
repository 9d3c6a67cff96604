"""Blur by FFT."""

from dataclasses import InitVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.operators.base import Linear
from jaxdiff.util.arrays import Array
from jaxdiff.util.pytree import pytree, static

BOUNDARIES = ("circular", "reflect", "zero")


@pytree
class Blur(Linear):
    """Convolution of every channel with a kernel; circular, it is A = F⁻¹ diag(K) F.

    The kernel's pixel ⌊size/2⌋ is its centre, for odd and for even sizes, as in the course. It is
    a convolution, not a correlation, and the kernel is used as it is.

    Args:
        kernel: [h, w], real.
        shape: (H, W) of the image.
        normalize: divide the kernel by its sum first.
        boundary: what is around the image: "circular", itself; "reflect", its mirror image (whose
            border pixel is not repeated, numpy's and torch's "reflect"); "zero", nothing. Circular
            alone has a `solve` and a `pinv` in closed form.

    Raises:
        ValueError: for another boundary; a kernel that is not 2-D, larger than the image, holds NaN or infinite
            values, or is to be normalised and sums to zero or less.

    Example:
        >>> blur = Blur(np.ones((3, 3)) / 9, (8, 8))
        >>> blur(jnp.ones((8, 8, 3))).shape
        (8, 8, 3)
    """

    kernel: Array
    shape: tuple[int, int] = static()
    normalize: InitVar[bool] = False
    boundary: str = static(default="circular")

    def __post_init__(self, normalize):
        if self.boundary not in BOUNDARIES:
            raise ValueError(
                f"boundary: expected one of {', '.join(BOUNDARIES)}, got {self.boundary!r}"
            )
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
        rows, columns = (
            int(np.abs(np.flatnonzero(kernel.any(axis)) - n // 2).max(initial=0))
            for axis, n in zip((1, 0), self.shape)
        )
        return rows, columns

    @property
    def circular(self) -> bool:
        """Whether it is a filter."""
        return self.boundary == "circular"

    def factors(self, dtype):
        """Nothing follows it where it is a filter."""
        return (None, transfer(self.kernel, dtype)) if self.circular else super().factors(dtype)

    def near(self, dtype):
        """But for the border the circular one."""
        return None, transfer(self.kernel, dtype)

    def _bordered(self, x):
        """F⁻¹ diag(K) F of the image with its surroundings, cut back to the image."""
        x = self._checked(x)
        margins = [(n - 1 - n // 2, n // 2) for n in self.shape]
        margins = [(0, 0)] * (x.ndim - 3) + margins + [(0, 0)]
        wide = jnp.pad(x, margins, mode="reflect" if self.boundary == "reflect" else "constant")
        size, dtype = wide.shape[-3:-1], jnp.promote_types(x.dtype, jnp.float32)
        response = jnp.fft.rfft2(jnp.asarray(self.kernel, dtype), s=size)[..., None]
        spectrum = response * jnp.fft.rfft2(wide.astype(dtype), axes=(-3, -2))
        blurred = jnp.fft.irfft2(spectrum, s=size, axes=(-3, -2)).astype(x.dtype)
        return blurred[..., self.shape[0] - 1 :, self.shape[1] - 1 :, :]

    def _checked(self, x):
        x = jnp.asarray(x)
        if x.shape[-3:-1] != self.shape:
            raise ValueError(
                f"expected [..., {self.shape[0]}, {self.shape[1]}, C], got {list(x.shape)}"
            )
        return x

    def _apply(self, x, response):
        """F⁻¹ diag(response(K)) F x."""
        x = self._checked(x)
        dtype = jnp.promote_types(x.dtype, jnp.float32)
        spectrum = response(transfer(self.kernel, dtype)) * jnp.fft.rfft2(
            x.astype(dtype), axes=(-3, -2)
        )
        return jnp.fft.irfft2(spectrum, s=self.shape, axes=(-3, -2)).astype(x.dtype)

    def __call__(self, x) -> jax.Array:
        """Ax."""
        return self._apply(x, lambda k: k) if self.circular else self._bordered(x)

    def adjoint(self, y) -> jax.Array:
        """Aᵀy: ⟨Ax, y⟩ = ⟨x, Aᵀy⟩."""
        return self._apply(y, jnp.conj) if self.circular else super().adjoint(y)

    def pinv(self, y) -> jax.Array:
        """A⁺y: frequencies at which |K| is below rounding of its largest value are dropped."""
        if not self.circular:
            return super().pinv(y)

        def response(k):
            power = jnp.abs(k) ** 2
            keep = power > power.max() * jnp.finfo(power.dtype).eps ** 2 * max(self.shape) ** 2
            return jnp.where(keep, jnp.conj(k) / jnp.where(keep, power, 1), 0)

        return self._apply(y, response)

    def spectral(self, function, x) -> jax.Array:
        """F⁻¹ diag(f(|K|²)) F x, where it is a filter."""
        if not self.circular:
            return super().spectral(function, x)
        return self._apply(x, lambda k: function(jnp.abs(k) ** 2))

    def solve_with_report(self, residual, r2, s2):
        """F⁻¹ diag(K*/(r²|K|² + s²)) F residual where it is a filter; s² > 0."""
        if not self.circular:
            return self._solve_by_cg(residual, r2, s2)
        return self._apply(residual, lambda k: jnp.conj(k) / (r2 * jnp.abs(k) ** 2 + s2)), {}


def transfer(kernels, dtype) -> jax.Array:
    """K [..., H, W//2 + 1, 1]: the transforms of kernels [..., H, W] with their centres at the origin."""
    half = [-(n // 2) for n in np.shape(kernels)[-2:]]
    centred = jnp.roll(jnp.asarray(kernels, dtype), half, (-2, -1))
    return jnp.fft.rfft2(centred)[..., None]
