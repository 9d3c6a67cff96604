"""The noise level of a measurement, from the measurement alone."""

import jax
import numpy as np
from scipy.signal import convolve2d
from scipy.stats import norm

# The high-pass filter of Daubechies' wavelet with two vanishing moments: it takes slopes to zero.
_ROOT = np.sqrt(3)
_HIGH = np.array([1 - _ROOT, _ROOT - 3, 3 + _ROOT, -1 - _ROOT]) / (4 * np.sqrt(2))


def estimate_sigma(y: np.ndarray) -> float:
    """The standard deviation of white Gaussian noise in an image [H, W, C], the mean of channels.

    median |d|/Φ⁻¹(3/4) with d the finest diagonal coefficients of the db2 wavelet, which hold
    little of a photograph and less of a blurred one.

    Raises:
        ValueError: for an image of less than 8×8 pixels.

    Source: Donoho & Johnstone 1994 (Biometrika 81(3)), section 4.2.

    Example:
        >>> noise = 0.05 * np.random.default_rng(0).standard_normal((64, 64, 1))
        >>> abs(estimate_sigma(0.5 + noise) - 0.05) < 0.005
        True
    """
    if min(y.shape[:2]) < 8:
        raise ValueError(f"--sigma: cannot be estimated from {y.shape[0]}×{y.shape[1]} pixels")
    diagonal = np.outer(_HIGH, _HIGH)
    details = [convolve2d(channel, diagonal, "valid") for channel in np.moveaxis(y, -1, 0)]
    return float(np.mean([np.median(np.abs(d)) for d in details]) / norm.ppf(0.75))


def deviation(noise, y: np.ndarray) -> float:
    """About the standard deviation of a `jd.noise`, in the root mean square over a measurement.

    Example:
        >>> import jaxdiff as jd
        >>> round(deviation(jd.noise.Poisson(100), np.full((99, 99, 1), 0.25)), 3)
        0.05
    """
    return float(np.std(np.asarray(noise.draw(jax.random.key(0), y)) - y))
