"""A scanner that measures some of an image's frequencies."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.operators.base import Linear
from jaxdiff.util.arrays import Array
from jaxdiff.util.pytree import concrete, pytree

AXES = (-3, -2)


@pytree
class Fourier(Linear):
    """y_k = M F (S_k x), F unitary: magnetic resonance imaging with coils k.

    A measurement has a real and an imaginary channel for each coil and channel of the image,
    [..., H, W, K·C·2], with frequency 0 in the middle, as `jnp.fft.fftshift` puts it; frequencies that
    are not measured are 0. Without coils `solve` and `pinv` are closed forms, AᵀA being a filter:
    an image that is real has each frequency and its opposite.

    Args:
        mask: [H, W], 1 where a frequency is measured; frequency 0 in the middle.
        coils: [K, H, W] sensitivities S_k, complex or real; None for one coil that sees all alike.

    Raises:
        ValueError: for a mask that measures nothing or holds other values, coils of other sizes.

    Source: Pruessmann et al. 1999 (SENSE, Magnetic Resonance in Medicine 42(5)).

    Example:
        >>> Fourier.lines(4, (64, 64))(np.ones((64, 64, 3))).shape
        (64, 64, 6)
    """

    mask: Array
    coils: Array | None = None

    def __post_init__(self):
        mask = np.asarray(self.mask)
        if mask.ndim != 2 or not np.isin(mask, (0, 1)).all():
            raise ValueError(f"mask: expected [H, W] of 0 and 1, got {list(mask.shape)}")
        if not mask.any():
            raise ValueError("mask: measures no frequency: set some to 1, as Fourier.lines does")
        filled: dict[str, Any] = {"mask": mask.astype(np.float32)}
        if self.coils is not None and concrete(self.coils):
            coils = np.asarray(self.coils)
            if coils.ndim != 3 or coils.shape[1:] != mask.shape or not np.isfinite(coils).all():
                raise ValueError(
                    f"coils: expected finite [K, {mask.shape[0]}, {mask.shape[1]}], as the mask, "
                    f"got {list(coils.shape)}"
                )
            filled["coils"] = coils.astype(np.complex128)
        return filled

    @classmethod
    def lines(
        cls, factor: int, shape: tuple[int, int], seed: int = 0, coils: Array | None = None
    ) -> "Fourier":
        """A `factor` times faster scan: some columns, all in the middle and others at random.

        The middle are 0.32/factor of them, as fastMRI has it: 8 % for 4.

        Raises:
            ValueError: for a factor that leaves no column, or none out.
        """
        height, width = shape
        if not isinstance(factor, int | np.integer) or not 1 < factor <= width:
            raise ValueError(f"factor: expected an integer from 2 to {width}, got {factor!r}")
        count, middle = max(width // factor, 1), max(round(0.32 * width / factor), 1)
        start = (width - middle + 1) // 2
        kept = np.arange(start, start + middle)
        others = np.setdiff1d(np.arange(width), kept)
        kept = np.append(kept, np.random.default_rng(seed).permutation(others)[: count - middle])
        return cls(np.broadcast_to(np.isin(np.arange(width), kept), (height, width)), coils)

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W) of the image."""
        return self.mask.shape[-2:]

    def input_shape(self, shape):
        count = 1 if self.coils is None else self.coils.shape[-3]
        return (*shape[:-1], shape[-1] // (2 * count))

    def _maps(self, dtype):
        """[K, H, W, 1], complex."""
        kind = jnp.promote_types(dtype, jnp.complex64)
        if self.coils is None:
            return jnp.ones((1, 1, 1, 1), kind)
        return jnp.asarray(self.coils, kind)[..., None]

    def __call__(self, x) -> jax.Array:
        """Ax."""
        x = jnp.asarray(x)
        if x.shape[-3:-1] != self.shape:
            raise ValueError(
                f"expected images of {list(self.shape)}, as the mask, got {list(x.shape)}"
            )
        seen = self._maps(x.dtype) * x[..., None, :, :, :]
        spectrum = jnp.fft.fftshift(jnp.fft.fft2(seen, axes=AXES, norm="ortho"), AXES)
        parts = jnp.moveaxis(jnp.stack([spectrum.real, spectrum.imag], -1), -5, -3)
        return self.project(parts.reshape(*x.shape[:-1], -1).astype(x.dtype))

    def adjoint(self, y) -> jax.Array:
        """Aᵀy."""
        y = self.project(y)
        maps, (*rest, channels) = self._maps(y.dtype), self.input_shape(y.shape)
        parts = jnp.moveaxis(y.reshape(*rest, maps.shape[0], channels, 2), -3, -5)
        spectrum = jnp.fft.ifftshift(jax.lax.complex(parts[..., 0], parts[..., 1]), AXES)
        seen = jnp.conj(maps) * jnp.fft.ifft2(spectrum, axes=AXES, norm="ortho")
        return seen.sum(-4).real.astype(y.dtype)

    def project(self, y) -> jax.Array:
        """Without the frequencies that are not measured."""
        y = jnp.asarray(y)
        return y * jnp.asarray(self.mask, y.dtype)[..., None]

    def spectral(self, function, x) -> jax.Array:
        """F⁻¹ diag(f) F x of one coil: AᵀA is half the mask and half its mirror image."""
        if self.coils is not None:
            return super().spectral(function, x)
        mask = jnp.fft.ifftshift(jnp.asarray(self.mask, x.dtype), (-2, -1))
        opposite = jnp.roll(mask[::-1, ::-1], 1, (0, 1))
        gain = function((mask + opposite) / 2)[..., None]
        return jnp.fft.ifft2(gain * jnp.fft.fft2(x, axes=AXES), axes=AXES).real.astype(x.dtype)

    def pinv(self, y) -> jax.Array:
        """A⁺y."""
        if self.coils is not None:
            return super().pinv(y)
        return self.spectral(
            lambda m: jnp.where(m > 0, 1 / jnp.where(m > 0, m, 1), 0), self.adjoint(y)
        )

    def solve_with_report(self, residual, r2, s2):
        """(r²AᵀA + s²I)⁻¹Aᵀ residual, of one coil in closed form."""
        if self.coils is not None:
            return self._solve_by_cg(residual, r2, s2)
        return self.spectral(lambda m: 1 / (r2 * m + s2), self.adjoint(residual)), {}
