"""What is chosen by platform, in one place, each with its measurement."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp

from jaxdiff.util.pytree import concrete


@functools.cache
def compiler_options() -> dict[str, str]:
    """Options for `jax.jit` on the default backend; no global configuration is touched.

    CPU: jaxlib 0.10 hands reductions and convolutions to the YNN library. Off: on two cores, the
    faces64 network inside a scan takes 0.6 times as long forward and with the gradient
    (24 against 36 ms, 54 against 95 ms; medians of one run, jaxlib 0.10.2). And operations are ordered
    for memory: the temporaries of a DPS step at 256² take 1315 instead of 1350 MB, with `remat` 657
    instead of 735, in the same time (two cores).
    """
    if jax.default_backend() != "cpu":
        return {}
    options = {
        "xla_cpu_experimental_ynn_fusion_type": "",
        "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
    }
    return {name: value for name, value in options.items() if known(name, value)}


def known(option: str, value: str) -> bool:
    """Whether this jaxlib has the option."""
    try:
        jax.jit(lambda: 0, compiler_options={option: value}).lower().compile()
    except Exception:
        return False
    return True


def over_samples(step: Callable) -> Callable:
    """`step` of one sample, applied to each: all at once, or on CPU one after the other.

    CPU: a convolution's rounding depends on its batch size, and a guided trajectory amplifies
    rounding by 1e5, so that a vmapped sample would depend on how many others are drawn beside it.
    One by one it is the same to the bit, in the memory of one sample,
    at no cost: per sample of 8 on faces64, DDPM 23.3 against 22.4 ms, DPS 49.5 against 48.0, ΠGDM 53.4
    against 59.2 (two cores, medians of one run).
    Accelerators: vmap, which they need to be busy.
    """
    if jax.default_backend() != "cpu":
        return jax.vmap(step)
    return lambda *args: jax.lax.map(lambda one: step(*one), args)


def evaluation_batch() -> int:
    """How many 64×64 images to restore at once where nobody said.

    CPU: one, since `over_samples` runs them one after the other, and a run that is stopped loses
    less. Accelerators: not measured; enough that one is busy.
    """
    return 1 if jax.default_backend() == "cpu" else 16


def training_images(size: int) -> int | None:
    """How many images of size² pixels go through the network at once in training; None: the batch.

    CPU: as many as four of 64². With a batch of 32 an update takes 1.37 s in fours, 1.39 in eights, 1.61
    all at once, and 2.35 s where it is not the only program that runs: its 2 GB of temporaries are
    then mapped into memory anew, page by page (two cores, medians of one run).
    """
    return max(1, 4 * 64**2 // size**2) if jax.default_backend() == "cpu" else None


def training_dtype() -> Any:
    """What a network computes in while it is trained; its weights and moments are float32.

    CPU: float32, bfloat16 is emulated there. Accelerators: bfloat16, not measured.
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
