"""Operators by the recipes that the command line takes."""

import functools
import operator as operator_module
import re
from collections.abc import Sequence
from typing import NamedTuple

from jaxdiff.commands.recipes import OPERATORS, made
from jaxdiff.operators.base import Operator
from jaxdiff.operators.blur import Blur
from jaxdiff.operators.crop import Crop
from jaxdiff.operators.grey import Grey
from jaxdiff.operators.unknown_blur import UnknownBlur

MOST = 9


def operator(recipe: str, size: Sequence[int]) -> Operator:
    """The operator of a recipe, for images of `size` (height, width).

    Args:
        recipe: a name of `recipes.OPERATORS` and values: `blur:KERNEL` with a kernel as
            `data.load_kernel` takes it; `mask:FILE.png` (white is known) or `mask:0.3,7` (three pixels
            in ten are known, drawn with seed 7); `jpeg:30`; or several with @ between, the last
            applied first: `crop:8@blur:motion:17,0`.

    Raises:
        ValueError: names the recipe and what was expected; FileNotFoundError.

    Example:
        >>> import numpy as np
        >>> operator("crop:8@blur:gaussian:9,2", (64, 64))(np.ones((64, 64, 3))).shape
        (48, 48, 3)
    """
    return functools.reduce(operator_module.matmul, [_one(part, size) for part in _parts(recipe)])


def names(recipe: str) -> list[str]:
    """Those of the operators of a recipe.

    Example:
        >>> names("crop:8@blur-zero:motion:17,0@grey")
        ['crop', 'blur-zero', 'grey']
    """
    return [part.partition(":")[0] for part in _parts(recipe)]


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
        >>> import numpy as np
        >>> camera = of_measurement("blur:gaussian:9,2", (64, 64, 3), "unknown")
        >>> camera.canvas, camera.shown(np.ones(camera.canvas)).shape
        ((72, 72, 3), (64, 64, 3))
    """
    parts = _parts(recipe)
    unknown = border == "unknown" and "crop" not in names(recipe)
    picture = canvas = tuple(shape)
    cameras: list[Operator] = []
    for part in parts:
        one = _one(part, picture[:2])
        picture = one.input_shape(picture)
        if unknown and isinstance(one, Blur | UnknownBlur) and one.circular:
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
    parts = re.split(rf"@(?=(?:{'|'.join(OPERATORS)})(?:[:@]|$))", recipe)
    if len(parts) > MOST:
        raise ValueError(f"operator: {len(parts)} recipes with @ between, expected up to {MOST}")
    return parts


def _one(recipe: str, size: Sequence[int]) -> Operator:
    return made("operator", OPERATORS, recipe, (size[0], size[1]))
