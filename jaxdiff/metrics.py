"""How near restorations are to the truth."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.ndimage

from jaxdiff.data import to_uint8


def psnr(image, truth) -> float:
    """Peak signal-to-noise ratio in dB of images in [0, 1], computed on 8 bits as the course does.

    20·log₁₀(255/√mean((a − b)²)) with a, b rounded to 0–255 (uint8 images are taken as they are);
    infinite for equal images.

    Raises:
        ValueError: for images of different shapes.

    Example:
        >>> round(psnr(np.zeros((4, 4, 3)), np.full((4, 4, 3), 0.2)), 2)
        13.98
    """
    _same_shape(image, truth)
    a, b = (to_uint8(i).astype(np.float64) for i in (image, truth))
    mse = np.mean((a - b) ** 2)
    return float("inf") if mse == 0 else 20 * math.log10(255.0 / math.sqrt(mse))


def ssim(image, truth) -> float:
    """Structural similarity of images [H, W, C] in [0, 1], the mean over pixels and channels.

    (2μ_aμ_b + c₁)(2σ_ab + c₂)/((μ_a² + μ_b² + c₁)(σ_a² + σ_b² + c₂)) in windows of 7×7 pixels that
    lie within the image, with unbiased variances, c₁ = 0.01² and c₂ = 0.03²: the defaults of
    scikit-image's `structural_similarity(..., channel_axis=-1, data_range=1)`. uint8 images are
    divided by 255.

    Raises:
        ValueError: for images of different shapes, or smaller than the window.

    Source: Wang et al. 2004 (IEEE TIP 13(4), equation 13), whose windows are Gaussian.

    Example:
        >>> x = np.random.default_rng(0).random((16, 16, 3))
        >>> round(ssim(x, x), 6), ssim(x, 1 - x) < 0
        (1.0, True)
    """
    _same_shape(image, truth)
    a, b = (
        i / 255 if i.dtype == np.uint8 else i.astype(np.float64)
        for i in (np.asarray(image), np.asarray(truth))
    )
    size = 7
    if min(a.shape[:2]) < size:
        raise ValueError(f"ssim: expected images of at least {size}×{size}, got {list(a.shape)}")

    def mean(x):
        windows = scipy.ndimage.uniform_filter(x, size, axes=(0, 1))
        edge = size // 2
        return windows[edge:-edge, edge:-edge]

    mean_a, mean_b = mean(a), mean(b)
    unbiased = size**2 / (size**2 - 1)
    var_a = unbiased * (mean(a * a) - mean_a**2)
    var_b = unbiased * (mean(b * b) - mean_b**2)
    covariance = unbiased * (mean(a * b) - mean_a * mean_b)
    c1, c2 = 0.01**2, 0.03**2
    numerator = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return float((numerator / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean())


def _same_shape(image, truth):
    if np.shape(image) != np.shape(truth):
        raise ValueError(
            f"expected two images of one shape, got {list(np.shape(image))} "
            f"and {list(np.shape(truth))}"
        )


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Means and standard errors of PSNR and SSIM by sampler and steps, in order of appearance."""
    cells = []
    for sampler, steps in dict.fromkeys((row["sampler"], row["steps"]) for row in rows):
        own = [row for row in rows if (row["sampler"], row["steps"]) == (sampler, steps)]
        cell = {"sampler": sampler, "steps": steps, "images": len(own)}
        for key in ("psnr", "ssim"):
            values = np.array([row[key] for row in own])
            error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else 0.0
            cell |= {key: float(values.mean()), f"{key}_se": float(error)}
        cells.append(cell)
    return cells


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
