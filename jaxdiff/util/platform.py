"""What is chosen by platform, in one place; `benchmarks/choices.md` has the measurements."""

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.core
import jax.numpy as jnp

from jaxdiff.util.pytree import concrete


@dataclasses.dataclass(frozen=True)
class Choices:
    """Ways to compute the same numbers, of which each platform has its fastest.

    `vmap`: samples all at once, or one after the other; `pixels`: where one after the other, of how many
    pixels those are that still go together, in float32; `unroll`: steps of a trajectory in one
    iteration of its compiled loop; `phases`: gradients of strided convolutions as dense convolutions
    to every other pixel; `attention`: "xla" or "cudnn", an implementation of
    `jax.nn.dot_product_attention`, or None, our own; `options`: of the compiler.
    """

    vmap: bool = True
    pixels: int = 1
    unroll: int = 1
    phases: bool = True
    attention: Literal["xla", "cudnn"] | None = None
    options: dict[str, str] = dataclasses.field(default_factory=dict)


# A vmapped convolution's rounding depends on the batch, and a guided trajectory amplifies rounding: where
# it costs nothing, one sample after the other makes a draw independent of how many there are beside it.
# The kernels of `jaxdiff.nn.native` depend on no batch, and read their weights once for all of it.
_CPU = Choices(
    vmap=False,
    pixels=8 * 64**2,
    options={
        # XLA hands reductions and convolutions to a library that is slower in a loop.
        "xla_cpu_experimental_ynn_fusion_type": "",
        "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
    },
)


def choices() -> Choices:
    """This platform's, with what the environment says otherwise: JAXDIFF_CHOICES='{"unroll": 2}'.

    For measurements, in a process of its own: what is compiled stays as it is.

    Raises:
        ValueError: where JAXDIFF_CHOICES is no such JSON object.
    """
    usual = _CPU if jax.default_backend() == "cpu" else Choices()
    text = os.environ.get("JAXDIFF_CHOICES", "{}")
    try:
        return dataclasses.replace(usual, **json.loads(text))
    except (TypeError, ValueError):
        names = ", ".join(field.name for field in dataclasses.fields(Choices))
        raise ValueError(f"JAXDIFF_CHOICES: expected JSON with {names}, got {text}") from None


@functools.cache
def compiler_options() -> dict[str, str]:
    """Options for `jax.jit` on the default backend; no global configuration is touched."""
    return {name: value for name, value in choices().options.items() if known(name, value)}


def known(option: str, value: str) -> bool:
    """Whether this jaxlib has the option."""
    try:
        jax.jit(lambda: 0, compiler_options={option: value}).lower().compile()
    except Exception:
        return False
    return True


def map_samples(function: Callable, pixels: int | None = None) -> Callable:
    """`function` of one sample, its whole trajectory say, applied to each: all at once, or one after the other.

    Or some at once, where `pixels` says how large a sample is and its network is `independent` of others.
    """
    if choices().vmap:
        return jax.vmap(function)

    def mapped(*args):
        size = 1 if pixels is None else together(len(jax.tree.leaves(args)[0]), pixels)
        # A vmap of one would still make both branches of a conditional: `jaxdiff.nn.remat` has some.
        return jax.lax.map(lambda one: function(*one), args, batch_size=size if size > 1 else None)

    return mapped


def together(n: int, pixels: int) -> int:
    """How many of n samples of so many pixels go at once: a divisor of n, so that no rest is another program.

    >>> together(9, 64**2), together(32, 64**2), together(4, 256**2)
    (3, 8, 1)
    """
    most = max(1, choices().pixels // pixels)
    return max(size for size in range(1, min(n, most) + 1) if n % size == 0)


def evaluation_batch() -> int:
    """How many 64×64 images to restore at once where nobody said: one where they take turns.

    A run that is stopped then loses less.
    """
    return 16 if choices().vmap else 1


def training_images(size: int) -> int | None:
    """How many images of size² pixels go through the network at once in training; None: the batch.

    CPU: as many as four of 64², since the temporaries of more are mapped into memory anew each time.
    """
    return max(1, 4 * 64**2 // size**2) if jax.default_backend() == "cpu" else None


def training_dtype() -> Any:
    """What a network computes in while it is trained; its weights and moments are float32.

    CPUs emulate bfloat16.
    """
    return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16


def jit(function: Callable, static: Sequence[str] = (), donate: Sequence[str] = ()) -> Callable:
    """`jax.jit` with this platform's options, which are looked up at a call."""

    @functools.cache
    def compiled(options) -> Any:
        return jax.jit(
            function,
            static_argnames=static,
            donate_argnames=donate,
            compiler_options=dict(options),
        )

    @functools.wraps(function)
    def call(*args, **kwargs):
        # Inside a caller's jit, whose options hold and where ours would be an error.
        if isinstance(jnp.zeros(()), jax.core.Tracer):
            return function(*args, **kwargs)
        # Under a caller's grad or vmap: JAX takes options for the outermost program alone.
        options = compiler_options() if concrete((args, kwargs)) else {}
        return compiled(tuple(options.items()))(*args, **kwargs)

    return call
