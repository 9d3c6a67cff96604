"""PSNR and SSIM against scikit-image."""

import math

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from jaxdiff import data, metrics


def pair(shape, seed=0):
    rng = np.random.default_rng(seed)
    a = rng.random(shape)
    return a, np.clip(a + 0.2 * rng.standard_normal(shape), 0, 1)


@pytest.mark.parametrize("shape", [(64, 64, 3), (33, 40, 1), (7, 9, 3)])
def test_against_scikit_image(shape):
    a, b = pair(shape)
    assert metrics.ssim(a, b) == pytest.approx(
        structural_similarity(a, b, channel_axis=-1, data_range=1.0), abs=1e-10
    )
    a8, b8 = data.to_uint8(a), data.to_uint8(b)
    assert metrics.ssim(a8, b8) == pytest.approx(
        structural_similarity(a8, b8, channel_axis=-1), abs=1e-10
    )
    assert metrics.psnr(a, b) == pytest.approx(peak_signal_noise_ratio(a8, b8), abs=1e-12)


def test_psnr_is_the_formula_bit_for_bit():
    """20·log₁₀(255/√mse) on 8 bits, as the torch restoration codes compute it."""
    for seed in range(20):
        a, b = pair((16, 16, 3), seed)
        a8, b8 = np.uint8((a * 255).round()), np.uint8((b * 255).round())
        mse = np.mean((a8.astype(np.float64) - b8.astype(np.float64)) ** 2)
        assert metrics.psnr(a, b) == metrics.psnr(a8, b8) == 20 * math.log10(255 / math.sqrt(mse))
    assert metrics.psnr(a, a) == math.inf


def test_bad_images():
    for metric in (metrics.psnr, metrics.ssim):
        with pytest.raises(ValueError, match="one shape"):
            metric(np.zeros((8, 8, 3)), np.zeros((8, 8, 1)))
    with pytest.raises(ValueError, match="at least 7×7"):
        metrics.ssim(np.zeros((6, 8, 3)), np.zeros((6, 8, 3)))
