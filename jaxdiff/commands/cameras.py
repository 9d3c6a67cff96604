"""Operators by the recipes that the command line takes."""

import re
import warnings
from pathlib import Path

import numpy as np

from jaxdiff import data
from jaxdiff.operators.base import Operator
from jaxdiff.operators.blur import Blur
from jaxdiff.operators.crop import Crop
from jaxdiff.operators.downsample import Downsample
from jaxdiff.operators.grey import Grey
from jaxdiff.operators.mask import Mask
from jaxdiff.util.names import printable

NAMES = ("blur", "mask", "downsample", "crop", "grey")
MOST = 9
RECIPES = (
    "blur:KERNEL, mask:FILE, mask:KEPT,SEED, downsample:FACTOR, downsample:FACTOR,bicubic, "
    "crop:MARGIN, grey, or A@B for A after B"
)


def operator(recipe: str, size: tuple[int, int]) -> Operator:
    """The operator of a recipe, for images of `size` (height, width).

    Args:
        recipe: `blur:KERNEL` with a kernel as `data.load_kernel` takes it; `mask:FILE.png` (white
            is known) or `mask:0.3,7` (three pixels in ten are known, drawn with seed 7);
            `downsample:4` (box) or `downsample:4,bicubic`; `crop:8`; `grey`; or several with @
            between, the last applied first: `crop:8@blur:motion:17,0`.

    Raises:
        ValueError: names the recipe and what was expected; FileNotFoundError.

    Example:
        >>> operator("crop:8@blur:gaussian:9,2", (64, 64))(np.ones((64, 64, 3))).shape
        (48, 48, 3)
    """
    # Behind the @ stands a recipe; any other is part of a path.
    parts = re.split(rf"@(?=(?:{'|'.join(NAMES)})(?:[:@]|$))", recipe)
    if len(parts) > MOST:
        raise ValueError(f"operator: {len(parts)} recipes with @ between, expected up to {MOST}")
    *later, camera = [_one(part, size) for part in parts]
    for outer in reversed(later):
        camera = outer @ camera
    return camera


def _one(recipe: str, size: tuple[int, int]) -> Operator:
    name, _, rest = recipe.partition(":")
    first, _, second = rest.partition(",")
    try:
        match name:
            case "blur" if rest:
                return Blur(data.load_kernel(rest), size)
            case "mask" if re.fullmatch(r"[\d.]+(,\d+)?", rest) and not Path(rest).is_file():
                return Mask(_random_mask(float(first), int(second or 0), size))
            case "mask" if rest:
                return Mask(_read_mask(rest, size))
            case "downsample":
                return Downsample(int(first), second or "box")
            case "crop":
                return Crop(int(rest))
            case "grey" if not rest:
                return Grey()
            case _:
                raise ValueError(f"expected {RECIPES}")
    except FileNotFoundError:
        raise
    except ValueError as e:
        malformed = str(e).startswith(("invalid literal", "could not convert"))
        detail = f"expected {RECIPES}" if malformed else e
        raise ValueError(f"operator {printable(recipe)!r}: {detail}") from e


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
