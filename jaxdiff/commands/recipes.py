"""Operators and noises by the words that the command line takes: `jpeg:30`, `poisson:100`."""

import inspect
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxdiff import data, noise
from jaxdiff import operators as ops
from jaxdiff.util.names import printable

# A recipe NAME:VALUE,VALUE calls the function of its name with the image's size and the values, each
# read as its parameter is annotated: a default there is a value that may be left out.


def blur(size, kernel: Path):
    return ops.Blur(data.load_kernel(str(kernel)), size)


def blur_reflect(size, kernel: Path):
    return ops.Blur(data.load_kernel(str(kernel)), size, boundary="reflect")


def blur_zero(size, kernel: Path):
    return ops.Blur(data.load_kernel(str(kernel)), size, boundary="zero")


def unknown(size, pixels: int = 17):
    if pixels > min(size):
        raise ValueError(f"the kernel is larger than the image's {size[0]}×{size[1]}")
    return ops.UnknownBlur(pixels)


def varying(size, std: float = 2.0):
    """A Gaussian blur of 0 in the middle that grows to the corners."""
    half = (np.array(size) - 1) / 2
    down, right = np.indices(size) - half[:, None, None]
    away = 2 * np.hypot(down, right) / max(np.hypot(*half), 1)
    width = 2 * int(np.ceil(3 * std)) + 1
    spread = [np.ones((1, 1)), *(data.gaussian_kernel(width, s) for s in (std / 2, std))]
    weights = [np.maximum(1 - abs(away - i), 0) for i in range(3)]
    return ops.SpaceVaryingBlur(spread, weights, size)


def mask(size, kept_or_file: Path):
    rest = str(kept_or_file)
    if re.fullmatch(r"[\d.]+(,\d+)?", rest) and not kept_or_file.is_file():
        kept, _, seed = rest.partition(",")
        if kept.count(".") > 1:
            raise ValueError(f"expected the share of known pixels, as 0.3, got {kept}")
        return ops.Mask(_random_mask(float(kept), int(seed or 0), size))
    return ops.Mask(_read_mask(rest, size))


def box(size, top: int, left: int, height: int, width: int):
    return ops.Inpaint((top, left, height, width), size)


def outpaint(size, margin: int = 16):
    return ops.Outpaint((margin, margin, size[0] - 2 * margin, size[1] - 2 * margin), size)


def downsample(size, factor: int, method: str = "box"):
    return ops.Downsample(factor, method)


def crop(size, margin: int):
    return ops.Crop(margin)


def grey(size):
    return ops.Grey()


def demosaic(size, pattern: str = "RGGB"):
    return ops.Demosaic(pattern)


def fourier(size, factor: int = 4, seed: int = 0):
    return ops.Fourier.lines(factor, size, seed)


def radon(size, angles: int = 60):
    return ops.Radon(angles, size)


def cs(size, factor: int = 4, seed: int = 0):
    return ops.CompressedSensing(factor, size, seed)


def phase(size, oversample: int = 2):
    return ops.PhaseRetrieval(oversample)


def hdr(size, range: float = 2.0):
    return ops.HDR(range)


def saturate(size, gain: float = 2.0):
    return ops.Saturate(gain)


def gamma(size, exponent: float = 2.2):
    return ops.Gamma(exponent)


def jpeg(size, quality: int = 30):
    return ops.JPEG(quality)


def number(text: str) -> float:
    """A number or a fraction such as 10/255."""
    numerator, slash, denominator = text.partition("/")
    return float(numerator) / (float(denominator) if slash else 1)


def gaussian(sigma: float):
    return noise.Gaussian(sigma)


def poisson(peak: float = 100.0):
    return noise.Poisson(peak)


def poisson_gaussian(peak: float = 100.0, sigma: float = 0.02):
    return noise.PoissonGaussian(peak, sigma)


def laplace(scale: float):
    return noise.Laplace(scale)


def quantised(levels: int = 16, sigma: float = 0.02):
    return noise.Quantised(levels, sigma)


def _by_name(*functions) -> dict[str, Callable]:
    return {f.__name__.replace("_", "-"): f for f in functions}


OPERATORS = _by_name(
    blur, blur_reflect, blur_zero, unknown, varying, mask, box, outpaint, downsample, crop, grey, demosaic,
    fourier, radon, cs, phase, hdr, saturate, gamma, jpeg,
)  # fmt: skip
NOISES = _by_name(gaussian, poisson, poisson_gaussian, laplace, quantised)
HIDING = {"mask", "box", "outpaint"}  # some pixels of the measurement
BLURRING = {"blur", "blur-reflect", "blur-zero", "unknown", "varying"}  # on a scale of pixels
NO_PICTURES = {"fourier", "radon", "cs", "phase"}  # are the measurements


def usage(table: Mapping[str, Callable]) -> str:
    """The recipes of a table, with the defaults of what may be left out.

    Example:
        >>> usage({"fourier": fourier, "crop": crop})
        'fourier:FACTOR=4,SEED=0, crop:MARGIN'
    """
    return ", ".join(_usage(name, function) for name, function in table.items())


def _usage(name: str, function: Callable) -> str:
    if function is mask:
        return "mask:FILE, mask:KEPT,SEED=0"
    told = [p.name.upper() + _default(p.default) for p in _parameters(function)]
    return ":".join(filter(None, [name, ",".join(told)]))


def _default(value) -> str:
    if value is inspect.Parameter.empty:
        return ""
    return f"={value:g}" if isinstance(value, float) else f"={value}"


def _parameters(function: Callable) -> list[inspect.Parameter]:
    """Without the image's size."""
    return [p for p in inspect.signature(function).parameters.values() if p.name != "size"]


def made(kind: str, table: Mapping[str, Callable], recipe: str, *size: Sequence[int]):
    """What a recipe of a table means; `kind` is what messages call it.

    Raises:
        ValueError: names the recipe and what was expected; FileNotFoundError.

    Example:
        >>> made("noise", NOISES, "quantised:4,10/255").levels.item()
        4.0
    """
    name, _, rest = recipe.partition(":")
    try:
        if name not in table:
            raise ValueError(f"expected one of {', '.join(table)}: jaxdiff restore --help has more")
        expected = ValueError(f"expected {_usage(name, table[name])}")
        parameters = _parameters(table[name])
        whole = [p.annotation for p in parameters] == [Path]  # whose value may hold commas
        values = [rest] if whole else rest.split(",") if rest else []
        required = sum(p.default is p.empty for p in parameters)
        if not required <= len(values) <= len(parameters) or (whole and not rest):
            raise expected
        read = {int: int, float: number, str: str, Path: Path}
        try:
            arguments = [read[p.annotation](value) for p, value in zip(parameters, values)]
        except (ValueError, ZeroDivisionError):
            raise expected from None
        return table[name](*(tuple(s) for s in size), *arguments)
    except FileNotFoundError:
        raise
    except ValueError as e:
        raise ValueError(f"{kind} {printable(recipe)!r}: {e}") from e


def _random_mask(kept: float, seed: int, size) -> np.ndarray:
    if not 0 < kept < 1:
        raise ValueError(f"expected the share of known pixels, between 0 and 1, got {kept:g}")
    return np.random.default_rng(seed).random(size) < kept


def _read_mask(path: str, size) -> np.ndarray:
    """Whether each pixel is nearer to white than to black, or 1 where a file has but 0 and 1."""
    values = data.read_image(path, channels=None).mean(-1)
    if values.shape != tuple(size):
        raise ValueError(
            f"{printable(path)}: is {values.shape[0]}×{values.shape[1]}, the images "
            f"{size[0]}×{size[1]}"
        )
    if 0 < values.max() < 1.5 / 255:
        return values > 0
    grey = np.mean((values > 0.2) & (values < 0.8))
    if grey > 0.25:
        warnings.warn(
            f"{printable(path)}: {grey:.0%} of its pixels are neither black nor white: those "
            "nearer to white count as known",
            stacklevel=2,
        )
    return values > 0.5
