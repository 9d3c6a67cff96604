"""Rematerialisation: what a gradient needs is computed again for it, and not kept."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def recompute_late(f, *args):
    """f(*args), of which only the arguments are kept for the gradient: `jax.checkpoint` for CPUs.

    XLA's CPU backend drops checkpoint's barriers before it puts the operations in order, and may
    then compute everything again at once and hold it as before. Here the second pass stands
    in a conditional on a number of the incoming gradient, so that nothing of it can be computed
    before that is there. Where that number is NaN, so is the result.
    """
    return f(*args)


def _forward(f, *args):
    return f(*args), args


def _backward(f, args, gradient):
    def again(args, gradient):
        return jax.vjp(f, *args)[1](gradient)

    def nans(args, gradient):
        return jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), args)

    first = jax.tree.leaves(gradient)[0].ravel()[0]
    return jax.lax.cond(first == first, again, nans, args, gradient)


recompute_late.defvjp(_forward, _backward)


def runner(*context, remat: bool) -> Callable:
    """run(layer, *parts): a layer on the channels of all parts, and on `context`.

    With `remat` only the parts are kept for the gradient, and of the context the arrays.
    """

    def joined(parts):
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts, -1)

    def run(layer, *parts):
        if not remat:
            return layer(joined(parts), *context)
        graph, weights = nnx.split(layer)

        def again(weights, context, *parts):
            return nnx.merge(graph, weights)(joined(parts), *context)

        return recompute(again, weights, context, *parts)

    return run


def recompute(f: Callable, *args) -> Any:
    """f(*args), which is computed again for the gradient: only the arguments are kept for it.

    On CPUs by `recompute_late`, elsewhere by `jax.checkpoint` (benchmarks/choices.md).
    """
    if jax.default_backend() == "cpu":
        return recompute_late(f, *args)
    return jax.checkpoint(f)(*args)
