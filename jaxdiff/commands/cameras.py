"""Operators by the recipes that the command line takes."""

import functools
import operator as operator_module
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

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


def operator(recipe: str, size: Sequence[int]) -> Operator:
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
    return functools.reduce(operator_module.matmul, [_one(part, size) for part in _parts(recipe)])


class Camera(NamedTuple):
    """How a measurement was taken: of a canvas [H, W, C], of which a part is the picture to show."""

    operator: Operator
    canvas: tuple[int, ...]
    shown: Operator  # from the canvas to the picture


def of_picture(recipe: str, shape: tuple[int, ...]) -> Camera:
    """The camera that degrades a picture [H, W, C]: its blur is circular, the canvas the picture."""
    return Camera(operator(recipe, shape[:2]), shape, Crop(0))


def of_measurement(recipe: str, shape: tuple[int, ...], border: str) -> Camera:
    """The camera that a measurement [h, w, c] was taken with.

    Args:
        border: what a blur gathered beyond the picture: "unknown" light, of a canvas larger by the
            kernel's reach; or, "circular", that of the opposite side. A recipe that has a crop has
            said it itself.

    Example:
        >>> camera = of_measurement("blur:gaussian:9,2", (64, 64, 3), "unknown")
        >>> camera.canvas, camera.shown(np.ones(camera.canvas)).shape
        ((72, 72, 3), (64, 64, 3))
    """
    parts = _parts(recipe)
    unknown = border == "unknown" and not any(part.startswith("crop") for part in parts)
    picture = canvas = tuple(shape)
    cameras: list[Operator] = []
    for part in parts:
        one = _one(part, picture[:2])
        picture = one.input_shape(picture)
        if unknown and isinstance(one, Blur):
            rows, columns = one.reach
            crop = Crop(((rows, rows), (columns, columns)))
            one = crop @ _one(part, crop.input_shape(canvas)[:2])
        elif canvas != shape:
            one = _one(part, canvas[:2])
        canvas = one.input_shape(canvas)
        cameras.append(one)
    margins = [(a - b) // 2 for a, b in zip(canvas[:2], picture[:2])]
    shown = Crop([(m, m) for m in margins])
    return Camera(functools.reduce(operator_module.matmul, cameras), canvas, shown)


def in_grey(camera: Camera) -> Camera:
    """The same camera on grey film: its measurement and the picture are means over the channels."""
    return camera._replace(operator=Grey() @ camera.operator, shown=Grey() @ camera.shown)


def _parts(recipe: str) -> list[str]:
    """The recipes between which an @ stands, the last applied first; another @ is part of a path."""
    parts = re.split(rf"@(?=(?:{'|'.join(NAMES)})(?:[:@]|$))", recipe)
    if len(parts) > MOST:
        raise ValueError(f"operator: {len(parts)} recipes with @ between, expected up to {MOST}")
    return parts


def _one(recipe: str, size: Sequence[int]) -> Operator:
    name, _, rest = recipe.partition(":")
    first, _, second = rest.partition(",")
    try:
        match name:
            case "blur" if rest:
                return Blur(data.load_kernel(rest), (size[0], size[1]))
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
