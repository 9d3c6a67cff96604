"""What annotations call an array, and the numbers that constructors take.

Docstrings say an array's shape, its range and its units.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.core
import numpy as np

Array = jax.Array | np.ndarray
Number = float | np.floating | Array


def as_number(
    name: str, expected: str, fits: Callable[[float], bool], optional: bool = False
) -> Callable[[Any], Any]:
    """A converter: a finite number that fits in float64, or None where it is optional.

    An array, so that another number does not recompile; what is traced stays as it is.
    """

    def convert(value):
        if isinstance(value, jax.core.Tracer) or (optional and value is None):
            return value
        array = np.asarray(value)
        number = array.shape == () and array.dtype.kind in "fiu" and np.isfinite(array)
        if not (number and fits(float(array))):
            raise ValueError(f"{name}: expected {expected}, got {value!r}")
        return array.astype(np.float64)

    return convert


def positive(name: str, example: str) -> Callable[[Any], Any]:
    """`as_number` for a finite number > 0.

    Example:
        >>> float(positive("peak", "100")(50))
        50.0
        >>> positive("peak", "100")(0)
        Traceback (most recent call last):
        ValueError: peak: expected a finite number > 0, such as 100, got 0
    """
    return as_number(name, f"a finite number > 0, such as {example}", lambda value: value > 0)
