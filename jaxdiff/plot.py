"""Figures, drawn without pyplot: no window, no backend, no global state."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def comparison(panels: Sequence[tuple[str, np.ndarray]], std: np.ndarray | None = None) -> Figure:
    """Pictures side by side, titled, and beside them the posterior's standard deviation.

    Args:
        panels: (title, image [H, W, C] in [0, 1]) pairs.
        std: per-pixel standard deviation over samples [H, W, C] in image units, drawn as its
            mean over channels with a scale in units of 1/255.

    Returns:
        a matplotlib figure; `figure.savefig(path)` writes it.
    """
    count = len(panels) + (std is not None)
    columns = min(count, 5)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(2.3 * columns, 2.65 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, (title, image) in zip(axes, panels):
        image = np.clip(np.asarray(image), 0, 1)
        axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_title(title, fontsize=9)
    if std is not None:
        axis = axes[count - 1]
        deviation = np.asarray(std).mean(-1) * 255
        # A scale that a few pixels at the border do not set.
        top = float(np.quantile(deviation, 0.995)) or 1.0
        drawn = axis.imshow(deviation, cmap="magma", vmin=0, vmax=top)
        axis.set_title("standard deviation\n(units of 1/255)", fontsize=9)
        figure.colorbar(drawn, ax=axis, fraction=0.046, pad=0.03).ax.tick_params(labelsize=7)
    return figure


def grid(images: np.ndarray, gap: int = 2) -> np.ndarray:
    """Images [n, H, W, C] in one near-square picture, white between them."""
    images = np.clip(np.asarray(images), 0, 1)
    n, h, w, c = images.shape
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    sheet = np.ones((rows * (h + gap) - gap, columns * (w + gap) - gap, c), images.dtype)
    for i, image in enumerate(images):
        top, left = i // columns * (h + gap), i % columns * (w + gap)
        sheet[top : top + h, left : left + w] = image
    return sheet
