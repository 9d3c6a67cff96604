"""What is chosen by platform, in one place, each with its measurement."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax


@functools.cache
def compiler_options() -> dict[str, str]:
    """Options for `jax.jit` on the default backend; no global configuration is touched.

    CPU: jaxlib 0.10 hands reductions and convolutions to the YNN library. Off: on two cores, the
    faces64 network inside a scan takes 0.6 times as long forward and with the gradient
    (24 against 36 ms, 54 against 95 ms; medians of one run, jaxlib 0.10.2).
    """
    if jax.default_backend() != "cpu":
        return {}
    options = {"xla_cpu_experimental_ynn_fusion_type": ""}
    try:  # another jaxlib may not know the option
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except Exception:
        return {}
    return options


def jit(function: Callable, static: Sequence[str] = ()) -> Callable:
    """`jax.jit` with this platform's options, which are looked up at the first call."""

    @functools.cache
    def compiled() -> Any:
        return jax.jit(function, static_argnames=static, compiler_options=compiler_options())

    @functools.wraps(function)
    def call(*args, **kwargs):
        return compiled()(*args, **kwargs)

    return call
