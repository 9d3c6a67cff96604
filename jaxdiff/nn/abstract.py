"""Networks whose leaves are shapes."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import jax
from flax import nnx


def abstract(build: Callable[[nnx.Rngs], Any]) -> Any:
    """The network that `build(rngs)` makes, with shapes for leaves: nothing is drawn or allocated."""
    key = jax.random.key(0)
    # One key for all layers: nnx.Rngs counts its draws, which takes a second to trace.
    rngs = cast(nnx.Rngs, SimpleNamespace(params=lambda: key))
    return nnx.eval_shape(lambda: build(rngs))
