"""How near a restoration is to the truth."""

import numpy as np

from jaxdiff.data import to_uint8


def psnr(image, truth) -> float:
    """Peak signal-to-noise ratio in dB of images in [0, 1], computed on 8 bits as the course does.

    10·log₁₀(255²/mean((a − b)²)) with a, b rounded to 0–255; infinite for equal images.

    Example:
        >>> round(psnr(np.zeros((4, 4, 3)), np.full((4, 4, 3), 0.2)), 2)
        13.98
    """
    difference = to_uint8(image).astype(np.float64) - to_uint8(truth)
    mse = float(np.mean(difference**2))
    return float("inf") if mse == 0 else 10 * float(np.log10(255**2 / mse))


def wiener(y, operator, sigma: float) -> np.ndarray:
    """The Wiener filter of a circular blur, for images whose power falls as 1/f².

    x̂ = m + F⁻¹ diag(K* S/(|K|²S + σ²)) F (y − A m), with m the mean colour and
    S(f) = c/(f² + f₀²) per channel, f₀ half a cycle an image and c fitted so that Σ|K|²S is the
    measurement's variance less σ². The classical restoration that a prior has to beat.

    Args:
        y: [H, W, C] in image units; operator: a `Blur`; sigma: of the noise, image units.
    """
    y = np.asarray(y, np.float64)
    h, w = y.shape[:2]
    transfer = np.fft.fft2(np.asarray(operator.kernel))[..., None]
    fy, fx = np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w)[None]
    shape = 1 / (fy**2 + fx**2 + 0.25 / (h * w))[..., None]
    shape[0, 0] = 0  # the mean is not a matter of the filter
    power = np.abs(transfer) ** 2
    signal = np.maximum(y.var((0, 1)) - sigma**2, 1e-6) / (power * shape).mean((0, 1))
    spectrum = signal * shape
    mean = y.mean((0, 1)) / transfer[0, 0].real
    centred = np.fft.fft2(y - mean * transfer[0, 0].real, axes=(0, 1))
    gain = np.conj(transfer) * spectrum / (power * spectrum + max(sigma, 1e-4) ** 2)
    restored = mean + np.fft.ifft2(gain * centred, axes=(0, 1)).real
    return np.clip(restored, 0, 1).astype(np.float32)
