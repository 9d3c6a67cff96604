"""A lens whose blur changes over the picture."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.operators.base import Linear
from jaxdiff.operators.blur import Blur, transfer
from jaxdiff.util.arrays import Array
from jaxdiff.util.pytree import concrete, pytree, static

AXES = (-3, -2)


@pytree
class SpaceVaryingBlur(Linear):
    """A x = Σ_n k_n ∗ (w_n·x): light from a pixel is spread by the kernels' mean with its weights.

    The convolutions are circular, the kernels as `Blur` takes them. `solve` and `pinv` go by conjugate
    gradients.

    Args:
        kernels: N of them [h, w].
        weights: [N, H, W] ≥ 0: how far each kernel is that of a pixel; usually of sum 1.
        shape: (H, W) of the image.

    Raises:
        ValueError: for what is no kernel, weights of another shape, negative or all 0.

    Source: Nagy & O'Leary 1998 (SIAM J. Sci. Comput. 19(4)); Hirsch et al. 2010 (CVPR).

    Example:
        >>> right = np.broadcast_to(np.linspace(0, 1, 8), (8, 8))
        >>> kernels = [np.ones((1, 1)), np.ones((3, 3)) / 9]
        >>> SpaceVaryingBlur(kernels, [1 - right, right], (8, 8))(np.ones((8, 8, 3))).shape
        (8, 8, 3)
    """

    kernels: Array | Sequence[Array]
    weights: Array | Sequence[Array]
    shape: tuple[int, int] = static()

    def __post_init__(self):
        if not concrete((self.kernels, self.weights)):
            return None
        kernels = np.array([Blur(kernel, self.shape).kernel for kernel in self.kernels])
        weights = np.asarray(self.weights, np.float64)
        if not len(kernels) or weights.shape != kernels.shape:
            raise ValueError(
                f"weights: expected {[len(kernels), *self.shape]}, one map a kernel, got "
                f"{list(weights.shape)}"
            )
        if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
            raise ValueError("weights: expected finite numbers ≥ 0, not all 0")
        return {"kernels": kernels, "weights": weights}

    def __call__(self, x) -> jax.Array:
        """Ax."""
        x = jnp.asarray(x)
        if x.shape[-3:-1] != self.shape:
            raise ValueError(f"expected images of {list(self.shape)}, got {list(x.shape)}")
        weighted = jnp.asarray(self.weights, x.dtype)[..., None] * x[..., None, :, :, :]
        spectrum = (transfer(self.kernels, x.dtype) * jnp.fft.rfft2(weighted, axes=AXES)).sum(-4)
        return jnp.fft.irfft2(spectrum, s=self.shape, axes=AXES)

    def adjoint(self, y) -> jax.Array:
        """Aᵀy = Σ_n w_n·(k_n ⋆ y)."""
        y = jnp.asarray(y)
        spectrum = jnp.fft.rfft2(y, axes=AXES)[..., None, :, :, :]
        spread = jnp.conj(transfer(self.kernels, y.dtype)) * spectrum
        seen = jnp.fft.irfft2(spread, s=self.shape, axes=AXES)
        return (jnp.asarray(self.weights, y.dtype)[..., None] * seen).sum(-4)

    def near(self, dtype):
        """The filter of the mean kernel."""
        share = jnp.asarray(self.weights, dtype).mean((-2, -1))
        return None, jnp.einsum("n,nhwc->hwc", share, transfer(self.kernels, dtype))
