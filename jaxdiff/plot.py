"""Figures, drawn without pyplot: no window, no backend, no global state."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.axes_grid1 import ImageGrid

from jaxdiff import metrics, operators
from jaxdiff.operators.base import LinearCompose
from jaxdiff.schedules.ddpm import Schedule

Panel = tuple[str, np.ndarray]

LABELS = {  # samplers as people say them
    "spectral": "spectral",
    "spectral-jacobian": "spectral, Jacobian",
    "spectral-mean": "spectral, no draw",
    "pigdm": "ΠGDM, course",
    "pigdm-paper": "ΠGDM, paper",
    "dps": "DPS, fixed",
    "dps-adaptive": "DPS, adaptive",
    "diffpir": "DiffPIR",
    "ddrm": "DDRM",
    "ddnm": "DDNM",
    "mmps": "MMPS",
    "daps": "DAPS",
    "pnpdm": "PnP-DM",
    "tmpd": "TMPD",
    "reddiff": "RED-diff",
    "sitcom": "SITCOM",
    "fastdips": "FAST-DIPS",
    "repaint": "RePaint",
    "tds": "TDS",
    "blind": "blind",
    "azula-mmps-1": "azula's MMPS, 1 iteration",
    "azula-mmps-3": "azula's MMPS, 3 iterations",
}
_DPI = 100
_PANEL = 180  # the least pixels of a panel's longer side
_GAP = 8
_BAR = 10  # the width of a colour bar
_EXACT: dict[str, Any] = {"interpolation": "nearest", "aspect": "equal"}


def comparison(panels: Sequence[Panel], std: np.ndarray | None = None, columns: int = 5) -> Figure:
    """Pictures side by side, titled, and after them the posterior's standard deviation.

    A pixel of an image is a square of whole pixels of the figure; of images of several sizes each
    has its own factor. No row but the last is shorter, and that one as little as can be.

    Args:
        panels: (title, image [H, W, C] in [0, 1]) pairs.
        std: per-pixel standard deviation over samples [H, W, C] in image units, drawn as its
            mean over channels with a scale in units of 1/255.
        columns: the most pictures in a row.

    Returns:
        a matplotlib figure; `figure.savefig(path)` writes it.

    Raises:
        ValueError: where there is nothing to draw.
    """
    images = [np.clip(np.asarray(image), 0, 1) for _, image in panels]
    deviation = None if std is None else np.asarray(std).mean(-1) * 255
    sheets = images if deviation is None else [*images, deviation]
    if not sheets:
        raise ValueError("panels: expected at least one picture")
    size = np.max([sheet.shape[:2] for sheet in sheets], 0)
    height, width = size * math.ceil(_PANEL / size.max())
    titles = [_wrapped(title, width) for title, _ in panels]
    titles += [] if std is None else ["standard deviation\n(units of 1/255)"]
    lines = max(title.count("\n") + 1 for title in titles)

    columns = _columns(len(sheets), columns)
    figure, axes = _image_grid(len(sheets), columns, (height, width), 8 + 14 * lines)
    for axis, image in zip(axes, images):
        axis.imshow(_magnified(image, (height, width)), cmap="gray", vmin=0, vmax=1, **_EXACT)
    if deviation is not None:
        # A scale that a few pixels at the border do not set.
        top = float(np.quantile(deviation, 0.995)) or 1.0
        axis = axes[len(images)]
        shown = _magnified(deviation, (height, width), np.nan)
        drawn = axis.imshow(shown, cmap="magma", vmin=0, vmax=top, **_EXACT)
        bar = figure.colorbar(drawn, cax=axis.inset_axes((1 + _GAP / width, 0, _BAR / width, 1)))
        bar.locator = MaxNLocator(5, integer=True)
        bar.ax.tick_params(labelsize=7)
    for axis, title in zip(axes, titles):  # whose first lines stand at one height
        axis.set_title(title + "\n" * (lines - 1 - title.count("\n")), fontsize=8, pad=4)
    return figure


def degraded(operator: Any, y: Any, sigma: float | None = None) -> Panel:
    """A measurement that says what was done to it.

    Args:
        sigma: the noise's standard deviation in image units, where it should be said.

    Example:
        >>> from jaxdiff.operators import Downsample
        >>> degraded(Downsample(4), np.ones((16, 16, 3)), 10 / 255)[0]
        'degraded: ×4 smaller, σ = 10/255'
    """
    words = [*_words(operator), *([] if not sigma else [f"σ = {255 * float(sigma):.3g}/255"])]
    return f"degraded: {', '.join(words)}", np.asarray(y)


def _words(operator) -> list[str]:
    """What an operator does, in the order in which it does it."""
    match operator:
        case operators.Compose() | LinearCompose():
            return [*_words(operator.inner), *_words(operator.outer)]
        case operators.Mask():
            return [f"{1 - float(np.mean(operator.mask)):.0%} missing"]
        case operators.UnknownBlur():
            return ["unknown blur"]
        case operators.Downsample():
            return [f"×{operator.factor} smaller"]
    return [type(operator).__name__.lower()]


def scored(title: str, image, truth) -> Panel:
    """A panel whose title gives the PSNR, where there is a truth of that shape to compare with."""
    comparable = truth is not None and np.shape(image) == np.shape(truth)
    return (f"{title}\n{metrics.psnr(image, truth):.2f} dB" if comparable else title), image


def posterior(samples, truth=None, *, shown: int = 4, before: Sequence[Panel] = ()) -> Figure:
    """The truth, other pictures, posterior samples, their mean and their standard deviation.

    Args:
        samples: [n, H, W, C] in [0, 1].
        truth: [H, W, C], where it is known: then every picture has its PSNR in dB.
        shown: the most samples to draw.
        before: panels between the truth and the samples, such as ("degraded", y).
    """
    samples = np.asarray(samples)
    panels = [] if truth is None else [("ground truth", np.asarray(truth))]
    panels += [scored(title, image, truth) for title, image in before]
    panels += [scored(f"posterior sample {i + 1}", s, truth) for i, s in enumerate(samples[:shown])]
    if len(samples) == 1:
        return comparison(panels)
    panels.append(scored("posterior mean", samples.mean(0), truth))
    return comparison(panels, samples.std(0, ddof=1))


def strip(states: Sequence[Any] | np.ndarray, t: Sequence[int], columns: int = 10) -> Figure:
    """A trajectory as a row of pictures: states [T, H, W, C] in [0, 1], of which `columns`.

    Args:
        t: the timestep of each state, its title.
    """
    chosen = np.unique(np.linspace(0, len(states) - 1, min(columns, len(states))).round())
    panels = [(f"t = {t[int(i)]:g}", np.asarray(states[int(i)])) for i in chosen]
    return comparison(panels, columns=columns)


def schedule(schedule: Schedule, num_steps: Sequence[int] = (1000, 100)) -> Figure:
    """β, α, ᾱ, η = β/√α (adaptive DPS's weight) and σ of respaced schedules, against t."""
    figure, axes = _figure(1, 5, 2.9, 2.7)
    for count in num_steps:
        steps = schedule.steps(count)
        values = {
            "β": steps.betas,
            "α": steps.alphas,
            "ᾱ": steps.alphas_cumprod,
            "η = β/√α": steps.betas / np.sqrt(steps.alphas),
            "σ": steps.sigma,
        }
        for axis, (name, value) in zip(axes, values.items()):
            axis.plot(steps.t, value, label=f"T = {count}")
            axis.set_title(name)
            axis.set_xlabel("timestep t")
    axes[0].legend(fontsize=8)
    return figure


def differences(curves: Mapping[str, np.ndarray], bounds: Sequence[float] = ()) -> Figure:
    """Differences by step on a logarithmic scale; `bounds` are drawn as dashed lines."""
    figure, (axis,) = _figure(1, 1, 7, 3.4)
    for label, values in curves.items():
        axis.semilogy(np.arange(1, len(values) + 1), np.maximum(values, 1e-18), label=label)
    for bound in bounds:
        axis.axhline(bound, color="grey", linestyle="--", linewidth=0.8)
    axis.set_xlabel("step")
    axis.set_ylabel("difference, image in [−1, 1]")
    axis.legend(fontsize=8)
    return figure


def error_spectra(covariance) -> Figure:
    """A `SpectralCovariance`: the error's standard deviation by frequency and by noise level.

    The left panel is the square root of the mean over colours of the spectrum, a line a noise
    level; the next one the correlation of two colours' errors, the mean of the pairs; the last
    one, where there is a modulation, its exponent γ.
    """
    figure, (left, right, *more) = _figure(1, 2 + (not covariance.stationary), 5, 3.6)
    variance = (1 - covariance.alphas_cumprod)[:, None, None, None] * covariance.table
    radius = np.arange(variance.shape[1]) * float(covariance.spacing)
    colours = variance.shape[-1]
    scale = np.sqrt(np.diagonal(variance, axis1=-2, axis2=-1))
    chosen = np.unique(np.linspace(0, len(variance) - 1, 7).round().astype(int))
    for place, level in enumerate(chosen):
        colour = colormaps["viridis"](place / max(len(chosen) - 1, 1))
        label = f"t = {covariance.timesteps[level]:.4g}"
        left.semilogy(radius, np.sqrt((scale[level] ** 2).mean(-1)), label=label, color=colour)
        if colours > 1:
            correlation = variance[level] / (scale[level][:, :, None] * scale[level][:, None])
            pairs = np.triu_indices(colours, 1)
            right.plot(radius, correlation[:, *pairs].mean(-1), label=label, color=colour)
    left.set_title("standard deviation of x₀ − x̂₀(x_t), image in [−1, 1]", fontsize=10)
    right.set_title("correlation of two colours' errors", fontsize=10)
    for axis in (left, right):
        axis.set_xlabel("spatial frequency, cycles a pixel")
    for axis in more:
        axis.plot(covariance.timesteps, covariance.modulation[:, 0], "o-", markersize=3)
        axis.set_title("γ: variance ∝ (contrast of x̂₀)^γ", fontsize=10)
        axis.set_xlabel("t")
    left.legend(fontsize=7)
    return figure


def training(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Training and validation loss against steps.

    Args:
        rows: of a run's log.csv.
    """
    figure, (axis,) = _figure(1, 1, 6.0, 3.5)
    axis.plot([r["step"] for r in rows], [r["loss"] for r in rows], linewidth=0.7, label="training")
    held = [(r["step"], r["validation_loss"]) for r in rows if r["validation_loss"] != ""]
    axis.plot(*zip(*held), marker="o", markersize=3, label="validation, averaged weights")
    axis.set_yscale("log")
    axis.set_xlabel("step")
    axis.set_ylabel("mean squared error of ε̂")
    axis.legend(fontsize=8)
    return figure


def evaluations(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Mean PSNR and SSIM with standard errors against network evaluations, a line a sampler.

    Args:
        rows: what `jaxdiff evaluate` writes to results.csv.
    """
    figure, axes = _figure(1, 2, 4.6, 3.5)
    cells = metrics.summary(rows)
    ticks = sorted({cell["steps"] for cell in cells})
    for axis, key, unit in zip(axes, ("psnr", "ssim"), ("PSNR (dB)", "SSIM")):
        for name in dict.fromkeys(cell["sampler"] for cell in cells):
            selected = [cell for cell in cells if cell["sampler"] == name]
            axis.errorbar(
                [cell["steps"] for cell in selected],
                [cell[key] for cell in selected],
                [cell[f"{key}_se"] for cell in selected],
                marker="o", markersize=4, capsize=3, label=LABELS.get(name, name),
            )  # fmt: skip
        for floor, style in (("degraded", ":"), ("wiener", "--")):
            if key == "psnr":
                mean = float(np.mean([row[f"psnr_{floor}"] for row in rows]))
                label = {"wiener": "Wiener filter"}.get(floor, floor)
                axis.axhline(mean, color="grey", linestyle=style, linewidth=1, label=label)
        axis.set_xscale("log")
        axis.set_xticks(ticks, [str(t) for t in ticks])
        axis.minorticks_off()
        axis.set_xlabel("network evaluations")
        axis.set_ylabel(unit)
    count = len({row["image"] for row in rows})
    figure.suptitle(f"one draw of each of {count} images, mean ± standard error", fontsize=10)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center", fontsize=8)
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


def _columns(count: int, most: int) -> int:
    """How many pictures a row: of the widest half, those that leave the fewest places empty."""
    most = min(count, most)
    return min(range(-(-most // 2), most + 1), key=lambda columns: (-count % columns, -columns))


def _image_grid(
    count: int, columns: int, panel: tuple[int, int], title: int
) -> tuple[Figure, list[Axes]]:
    """Axes of `panel` (height, width) pixels each, with room for titles and, at the right, a bar."""
    rows = math.ceil(count / columns)
    height, width = (int(n) for n in panel)
    wide = columns * (width + _GAP) - _GAP
    high = rows * (height + title) - title
    whole = np.array([wide + 2 * _GAP + 40, high + _GAP + title])
    figure = Figure(figsize=tuple(whole / _DPI), dpi=_DPI)
    FigureCanvasAgg(figure)
    place = (_GAP / whole[0], _GAP / whole[1], wide / whole[0], high / whole[1])
    axes: Any = ImageGrid(
        figure, place, (rows, columns), axes_pad=(_GAP / _DPI, title / _DPI),  # pyright: ignore[reportArgumentType]: a pair, too
        share_all=False,
    )  # fmt: skip
    for axis in axes:
        axis.set_axis_off()
    return figure, list(axes)


def _magnified(image: np.ndarray, panel: Sequence[int], empty: float = 1.0) -> np.ndarray:
    """The image, each pixel a square of whole pixels, in the middle of an empty panel."""
    height, width = image.shape[:2]
    factor = max(1, min(panel[0] // height, panel[1] // width))
    large = image.repeat(factor, 0).repeat(factor, 1)
    sheet = np.full((*panel, *image.shape[2:]), empty, large.dtype)
    top, left = (int(p - n) // 2 for p, n in zip(panel, large.shape))
    sheet[top : top + large.shape[0], left : left + large.shape[1]] = large
    return sheet


def _wrapped(title: str, width: int) -> str:
    """A title in lines that are no wider than its panel."""
    characters = max(8, int(width) // 5)
    return "\n".join(textwrap.fill(line, characters) for line in title.split("\n"))


def _figure(rows: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False).ravel())
