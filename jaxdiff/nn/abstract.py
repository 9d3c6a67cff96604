"""Networks whose leaves are shapes, and the layers that draw nothing for one."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import nnx


def abstract(build: Callable[[nnx.Rngs], Any]) -> Any:
    """The network that `build(rngs)` makes, with shapes for leaves: nothing is drawn or allocated."""
    return nnx.eval_shape(lambda: build(cast(nnx.Rngs, SimpleNamespace(params=lambda: None))))


def initializer(draw: Callable) -> Callable:
    """`draw(key, shape, dtype)`; zeros where there is no key, since to trace a draw takes time."""

    def init(key, shape, dtype=jnp.float32, **kwargs):
        return jnp.zeros(shape, dtype) if key is None else draw(key, shape, dtype, **kwargs)

    return init


# As nnx draws them.
normal = initializer(jax.random.normal)
Linear = partial(nnx.Linear, kernel_init=initializer(nnx.initializers.lecun_normal()))
_embedding = nnx.initializers.variance_scaling(1.0, "fan_in", "normal", out_axis=0)
Embed = partial(nnx.Embed, embedding_init=initializer(_embedding))
