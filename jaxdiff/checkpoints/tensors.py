"""A tensor of a file, read when it is used."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Tensor(NamedTuple):
    """What a file's header says of a tensor, and a function that reads its numbers."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]
    dtype: str = "float32"


Tensors = dict[str, Tensor]
