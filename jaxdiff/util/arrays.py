"""What annotations call an array: docstrings say its shape, its range and its units."""

import jax
import numpy as np

Array = jax.Array | np.ndarray
Number = float | np.floating | Array
