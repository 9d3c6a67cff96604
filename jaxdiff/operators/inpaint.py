"""Masks of rectangles."""

import operator

import numpy as np

from jaxdiff.operators.mask import Mask


def Inpaint(boxes, shape: tuple[int, int]) -> Mask:
    """The `Mask` whose boxes are missing.

    Args:
        boxes: (top, left, height, width) in pixels, or several of them.
        shape: (H, W) of the image.

    Raises:
        ValueError: for a box that is empty or leaves the image, or boxes that hide all of it.

    Example:
        >>> float(Inpaint((2, 2, 4, 4), (8, 8))(np.ones((8, 8, 3))).mean())
        0.75
    """
    known = np.ones(shape, bool)
    for box in np.atleast_2d(np.asarray(boxes, object)):
        known[_window(box, shape)] = False
    return Mask(known)


def Outpaint(box, shape: tuple[int, int]) -> Mask:
    """The `Mask` of which only a box is known: the picture goes on around it.

    Args:
        box: (top, left, height, width) in pixels of what is known.
        shape: (H, W) of the image.

    Raises:
        ValueError: for a box that is empty or leaves the image.

    Example:
        >>> float(Outpaint((2, 2, 4, 4), (8, 8))(np.ones((8, 8, 3))).mean())
        0.25
    """
    known = np.zeros(shape, bool)
    known[_window(box, shape)] = True
    return Mask(known)


def _window(box, shape):
    try:
        top, left, height, width = map(operator.index, box)
    except (TypeError, ValueError):
        raise ValueError(
            f"box: expected (top, left, height, width) in pixels, got {box!r}"
        ) from None
    inside = top >= 0 and left >= 0 and top + height <= shape[0] and left + width <= shape[1]
    if not inside or min(height, width) < 1:
        raise ValueError(
            f"box: {height}×{width} pixels from row {top} and column {left} are not within an image "
            f"of {shape[0]}×{shape[1]}"
        )
    return slice(top, top + height), slice(left, left + width)
