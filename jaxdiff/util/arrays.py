"""What annotations call an array, and the numbers that constructors take.

Docstrings say an array's shape, its range and its units.
"""

import jax
import jax.core
import numpy as np

Array = jax.Array | np.ndarray
Number = float | np.floating | Array


def positive(name: str, example: str):
    """A converter: a finite number > 0 in float64, an array so that another does not recompile.

    Example:
        >>> float(positive("peak", "100")(50))
        50.0
        >>> positive("peak", "100")(0)
        Traceback (most recent call last):
        ValueError: peak: expected a finite number > 0, such as 100, got 0
    """

    def convert(value):
        if isinstance(value, jax.core.Tracer):
            return value
        array = np.asarray(value)
        if array.shape != () or array.dtype.kind not in "fiu" or not 0 < float(array) < np.inf:
            raise ValueError(
                f"{name}: expected a finite number > 0, such as {example}, got {value!r}"
            )
        return array.astype(np.float64)

    return convert
