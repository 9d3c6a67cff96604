"""How near restorations are to the truth."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy  # whose parts load at their first use

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
        selected = [row for row in rows if (row["sampler"], row["steps"]) == (sampler, steps)]
        cell = {"sampler": sampler, "steps": steps, "images": len(selected)}
        for key in ("psnr", "ssim"):
            values = np.array([row[key] for row in selected])
            error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else 0.0
            cell |= {key: float(values.mean()), f"{key}_se": float(error)}
        cells.append(cell)
    return cells


def calibration(samples, truth) -> dict[str, Any]:
    """Whether posterior samples are as far apart as their mean is from the truth.

    `error_over_spread`: √(mean (x̄ − x)²/(mean s²·(1 + 1/n))) with s² the unbiased variance of the
    n samples, 1 when calibrated, above it where they are too sure; `error_over_spread_by_band`: the
    same in the bands of radius below 0.06, 0.15, 0.3 and 0.71 cycles a pixel; `coverage`: how
    often the truth lies between the least and the largest sample, for which exchangeability says
    `coverage_nominal` = (n − 1)/(n + 1). Ties, at clipped pixels, count as a draw by lot.

    Args:
        samples: [B, n, H, W, C], n ≥ 2; truth: [B, H, W, C].

    Raises:
        ValueError: for other shapes.

    Example:
        >>> x = np.random.default_rng(0).random((2, 10, 16, 16, 3))
        >>> round(calibration(x[:, 1:], x[:, 0])["error_over_spread"], 1)
        1.0
    """
    samples, truth = np.asarray(samples, np.float64), np.asarray(truth, np.float64)
    if samples.ndim != 5 or samples.shape[1] < 2 or samples[:, 0].shape != truth.shape:
        raise ValueError(
            f"expected samples [B, n, H, W, C] with n ≥ 2 and truth [B, H, W, C], "
            f"got {list(samples.shape)} and {list(truth.shape)}"
        )
    n, mean = samples.shape[1], samples.mean(1)
    error, deviation = mean - truth, samples - mean[:, None]
    inflation = (1 + 1 / n) / (n - 1)
    error_power = np.abs(np.fft.fft2(error, axes=(1, 2))) ** 2
    spread_power = (np.abs(np.fft.fft2(deviation, axes=(2, 3))) ** 2).sum(1) * inflation
    h, w = truth.shape[1:3]
    radius = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w))
    edges = (0, 0.06, 0.15, 0.3, 1)
    bands = [(radius >= a) & (radius < b) for a, b in itertools.pairwise(edges)]

    def ratio(band):
        return math.sqrt(error_power[:, band].sum() / max(spread_power[:, band].sum(), 1e-300))

    below = (samples < truth[:, None]).sum(1)
    tied = (samples == truth[:, None]).sum(1)
    outside = ((below == 0) * 1.0 + (below + tied == n)) / (tied + 1)
    return {
        "error_over_spread": ratio(np.ones((h, w), bool)),
        "error_over_spread_by_band": [ratio(band) for band in bands],
        "coverage": float(1 - outside.mean()),
        "coverage_nominal": (n - 1) / (n + 1),
    }


def __getattr__(name: str):
    """`metrics.wiener` moved to `jd.wiener`; the old name lasts one release."""
    if name == "wiener":
        from jaxdiff.wiener_filter import wiener

        return wiener
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
