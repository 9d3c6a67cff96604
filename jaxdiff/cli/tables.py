"""What `jaxdiff restore` prints of its report."""

from typing import Any

import numpy as np
from rich.table import Table

PSNR = {  # columns of a table where the truth is known
    "degraded": "psnr_degraded",
    "Wiener filter": "psnr_wiener",
    "one sample": "psnr_samples",
}

# One in twenty pictures that a prior knows has more than 1.5 to 2.3: benchmarks/choices.md.
MISFIT = 2.5


def restoration(report: dict[str, Any], out: str) -> list[Any]:
    """The table of a restoration, and what its numbers mean."""
    images, settings = report["images"], report["settings"]
    if not images:
        return []
    lines: list[Any] = [_scores(images, settings) if settings["degrade"] else _residuals(images)]
    first = next(iter(images.values()))
    if len(images) == 1 and "coverage" in first:
        lines.append(
            f"error/spread {first['error_over_spread']:.2f} (1 is calibrated); the truth is within "
            f"the samples' range at {first['coverage']:.2f} of the pixels (nominal, for calibrated "
            f"samples: {first['coverage_nominal']:.2f})"
        )
    if (far := strangers(images)) is not None:
        lines.append(far)
    lines.append(
        f"{len(images)} × {settings['samples']} samples in {report['seconds']:.1f} s "
        f"({report['seconds_compiling']:.1f} s of it compiling): {out}/"
    )
    return lines


def verdict(residual: float, sigma: float) -> str:
    """What the residual of a restoration says of the noise level and the camera.

    Example:
        >>> verdict(0.071, 0.039)
        'more than noise: the kernel or the noise level is wrong'
    """
    if residual > 1.3 * sigma + 1 / 255:
        return "more than noise: the kernel or the noise level is wrong"
    if residual < 0.7 * sigma - 1 / 255:
        return "less than noise: sigma is too large"
    return "as noise"


def strangers(images: dict[str, dict]) -> str | None:
    """A line on pictures whose measurements are not what the prior expects.

    Example:
        >>> strangers({"a.png": {"misfit": 1.2}, "b.png": {"misfit": 3.14}})[:60]
        'warning: b.png: 3.1 times as far from what the prior expects'
    """
    far = {name: r["misfit"] for name, r in images.items() if r.get("misfit", 0) > MISFIT}
    if not far:
        return None
    worst = max(far, key=lambda name: far[name])
    others = f" (of {len(far)} such images the furthest)" if len(far) > 1 else ""
    return (
        f"warning: {worst}{others}: {far[worst]:.1f} times as far from what the prior expects as it should be: "
        "the kernel or the noise level is wrong, or the prior does not know such pictures and its deviation is "
        "too small: try another --model"
    )


def _scores(images: dict[str, dict], settings: dict) -> Table:
    table = Table("image", title=f"{settings['sampler']}, {settings['steps']} steps, PSNR in dB")
    columns = PSNR | {f"mean of {settings['samples']}": "psnr_restored"}
    for heading in columns:
        table.add_column(heading, justify="right")
    for name, result in images.items():
        values = [np.mean(result[key]) if key in result else None for key in columns.values()]
        table.add_row(name, *("–" if v is None else f"{v:.2f}" for v in values))
    return table


def _residuals(images: dict[str, dict]) -> Table:
    table = Table("image", "residual", "noise", "the residual is")
    for name, result in images.items():
        residual, sigma = result["residual_rms"], result["sigma"]
        row = f"{residual:.4f}", f"{sigma:.4f}", verdict(residual, sigma)
        table.add_row(name, *row)
    return table
