"""The Wiener filter: the classical restoration that a prior has to beat."""

import jax.numpy as jnp
import numpy as np

from jaxdiff.linalg.cg import conjugate_gradients
from jaxdiff.linalg.fields import Stationary
from jaxdiff.operators import Blur
from jaxdiff.util.platform import jit


def wiener(y, operator, sigma: float, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """The best linear restoration of images whose power falls as 1/f²: the Wiener filter.

    x̂ = m + SAᵀ(ASAᵀ + σ²I)⁻¹(y − A m), with m the mean colour and S = F* diag(c/(f² + f₀²)) F,
    f₀ half a cycle an image and c fitted so that the measurement's variance less σ² is what A
    leaves of S. In closed form for a circular `Blur`, per channel; by conjugate gradients for every other
    linear operator, with one c and the grey mean. The classical restoration that a prior has to
    beat.

    Args:
        y: the measurement in image units; sigma: of its noise.
        shape: [H, W, C] of the image, where the operator does not give it by y's shape.

    Example:
        >>> import jaxdiff as jd
        >>> blur = jd.operators.Blur(np.ones((3, 3)) / 9, (8, 8))
        >>> wiener(np.full((8, 8, 3), 0.5), blur, 0.1).shape
        (8, 8, 3)
    """
    y = np.asarray(y, np.float64)
    if not (isinstance(operator, Blur) and operator.circular):
        return _linear_estimate(
            y, operator, max(sigma, 1e-3), shape or operator.input_shape(y.shape)
        )
    h, w = y.shape[:2]
    centred = np.roll(operator.kernel, [-(n // 2) for n in operator.shape], (0, 1))
    transfer = np.fft.fft2(centred)[..., None]
    fy, fx = np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w)[None]
    falling = 1 / (fy**2 + fx**2 + 0.25 / (h * w))[..., None]
    falling[0, 0] = 0  # the mean is not a matter of the filter
    power = np.abs(transfer) ** 2
    signal = np.maximum(y.var((0, 1)) - sigma**2, 1e-6) / (power * falling).mean((0, 1))
    spectrum = signal * falling
    mean = y.mean((0, 1)) / transfer[0, 0].real
    varying = np.fft.fft2(y - mean * transfer[0, 0].real, axes=(0, 1))
    gain = np.conj(transfer) * spectrum / (power * spectrum + max(sigma, 1e-4) ** 2)
    restored = mean + np.fft.ifft2(gain * varying, axes=(0, 1)).real
    return np.clip(restored, 0, 1).astype(np.float32)


def _linear_estimate(y, operator, sigma, shape) -> np.ndarray:
    h, w, channels = shape
    grey = np.asarray(operator(np.ones(shape, np.float32)))
    mean = float((grey * y).sum() / (grey**2).sum())
    residual = jnp.asarray(operator.project(y - mean * grey), jnp.float32)
    fy, fx = np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None]
    falling = 1 / (fy**2 + fx**2 + 0.25 / (h * w))
    prior = Stationary(jnp.asarray(falling[..., None, None] * np.eye(channels), jnp.float32))
    rng = np.random.default_rng(0)
    probes = (rng.standard_normal(shape, np.float32) for _ in range(8))
    left = np.mean([np.square(operator(prior.draw(probe))).mean() for probe in probes])
    signal = max(float(jnp.square(residual).mean()) - sigma**2, 1e-6) / left
    prior = Stationary(signal * prior.matrices)
    return np.clip(mean + np.asarray(_conditioned(operator, prior, residual, sigma**2)), 0, 1)


@jit
def _conditioned(operator, prior, residual, s2):
    """SAᵀ(ASAᵀ + σ²I)⁻¹ residual; one program for all images and operators of one shape."""
    u, _ = conjugate_gradients(
        lambda u: operator(prior.apply(operator.adjoint(u))) + s2 * u, residual
    )
    return prior.apply(operator.adjoint(u))
