"""What draws are worth, a row an image: rows of several images add up to their calibration."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jaxdiff import metrics


def scores(draws: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Of draws [n, H, W, C] of one image: PSNR in dB, coverage, and the squares that `error_over_spread` sums."""
    n, mean = len(draws), draws.mean(0)
    found = {"psnr_draw": float(np.mean([metrics.psnr(draw, truth) for draw in draws]))}
    if n == 1:
        return found
    return found | {
        "psnr_mean": metrics.psnr(mean, truth),
        "coverage": metrics.calibration(draws[None], truth[None])["coverage"],
        "error": float(np.mean((mean - truth) ** 2)),
        "spread": float(np.mean(draws.var(0, ddof=1)) * (1 + 1 / n)),
    }


def error_over_spread(rows: Iterable[Mapping[str, Any]]) -> float:
    """That of `metrics.calibration`, of the images of some rows; NaN where one has no spread."""
    error, spread = np.sum([(row["error"], row["spread"]) for row in rows], 0)
    return float(np.sqrt(error / spread))
