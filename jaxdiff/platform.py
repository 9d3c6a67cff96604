"""What is chosen by platform, in one place, each with its measurement."""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
from jax import lax

from jaxdiff import native
from jaxdiff.remat import recompute_late

Padding = tuple[tuple[int, int], tuple[int, int]]


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


def convolve(x, kernel, bias, stride: int, padding: Padding) -> jax.Array:
    """Cross-correlation of x [n, H, W, I] with kernel [h, w, I, O], plus bias [O].

    CPU in float32: `jaxdiff.native`, where there is a C compiler. XLA's own takes about twice as
    long for 3×3 kernels (batch 1: 64², 32 channels 0.53 against 0.25 ms; 16², 128: 0.48 against
    0.25; 256², 128: 113 against 54; two cores, medians of one run), and 1.1 to 1.3 times for others.
    CPU in float64: one matrix product a row of the kernel, since XLA has no fast convolution there:
    a ΠGDM step of faces64 inside a scan takes 0.20 s, 0.24 with a product a tap, 0.25 with one for
    all of them, 1.40 with XLA's own (two cores, jaxlib 0.10.2). With few channels there is little to
    win, and it compiles for longer.
    """
    if _native(x):
        return native.convolve(x, kernel, bias, stride, padding)
    few_channels = kernel.shape[2] * kernel.shape[3] < 32**2
    if x.dtype != jnp.float64 or few_channels or jax.default_backend() != "cpu":
        y = lax.conv_general_dilated(
            x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y + bias
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    rows, columns = kernel.shape[:2]
    height, width = x.shape[1] - rows + 1, x.shape[2] - columns + 1
    taps = [x[:, :, j : j + width : stride] for j in range(columns)]
    wide = jnp.concatenate(taps, axis=-1)
    products = [
        wide[:, i : i + height : stride] @ kernel[i].reshape(wide.shape[-1], -1)
        for i in range(rows)
    ]
    return functools.reduce(operator.add, products) + bias


def convolve_gradient(x, g, kernel, stride: int, padding: Padding):
    """The gradients of `convolve` to its kernel and bias, from x and the gradient g of its output.

    CPU in float32: `jaxdiff.native`. At batch 32 XLA's takes 37 against 8 ms with 32 channels at
    64², 19 against 6.6 with 64 at 32², 14 against 6.6 with 128 at 16² (two cores, medians of one run).
    """
    if _native(x):
        return native.convolve_gradient(x, g, kernel.shape, stride, padding)
    bias = jnp.zeros(kernel.shape[3], x.dtype)
    _, pullback = jax.vjp(lambda k, b: convolve(x, k, b, stride, padding), kernel, bias)
    return pullback(g)


def norms_natively(x) -> bool:
    """Whether `jaxdiff.native` normalises groups of the channels of x.

    CPU in float32 with whole vectors of channels. XLA takes 1.0 to 3 times as long forward and 2 to
    5 times for the gradient; at batch 32, 64², 32 channels 3 and 9 times (two cores).
    """
    return _native(x) and x.shape[-1] % 16 == 0


def _native(x) -> bool:
    return x.dtype == jnp.float32 and jax.default_backend() == "cpu" and native.available()


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


def recompute(f: Callable, *args) -> Any:
    """f(*args), which is computed again for the gradient: only the arguments are kept for it.

    CPU: `recompute_late`. A DPS step of CelebA-HQ's network at 256² takes 647 MB of temporaries instead
    of 1315, and 1.3 times as long; jax.checkpoint, tried before the convolutions were C, 1682 instead
    of 1849 (two cores, jaxlib 0.10.2). Accelerators: `jax.checkpoint`, not measured.
    """
    if jax.default_backend() == "cpu":
        return recompute_late(f, *args)
    return jax.checkpoint(f)(*args)


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
        return compiled(tuple(compiler_options().items()))(*args, **kwargs)

    return call
