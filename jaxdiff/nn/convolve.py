"""Convolution and its gradients, by what is fastest on this platform."""

import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxdiff.nn import native

Padding = tuple[tuple[int, int], tuple[int, int]]


def convolve(x, kernel, bias, stride: int, padding: Padding) -> jax.Array:
    """Cross-correlation of x [n, H, W, I] with kernel [h, w, I, O], plus bias [O].

    CPU in float32: `jaxdiff.nn.native`, where there is a C compiler. CPU in float64: one matrix
    product a row of the kernel, since XLA has no fast convolution there; with few channels there is
    little to win, and it compiles for longer. Measured in benchmarks/choices.md.
    """
    if natively(x):
        return native.convolve(x, kernel, bias, stride, padding)
    return _by_xla(x, kernel, bias, stride, padding)


def _by_xla(x, kernel, bias, stride: int, padding: Padding) -> jax.Array:
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


def convolve_gradient(x, g, kernel, stride: int, padding: Padding) -> Any:
    """The gradients of `convolve` to its kernel and bias, from x and the gradient g of its output.

    CPU in float32: `jaxdiff.nn.native`, for XLA's take several times as long (benchmarks/choices.md).
    """
    if natively(x):
        return _native_gradient(x, g, kernel.shape, stride, padding)
    return _gradient_by_xla(x, g, kernel.shape, stride, padding)


def _gradient_by_xla(x, g, shape, stride: int, padding: Padding):
    def convolved(kernel, bias):
        return _by_xla(x, kernel, bias, stride, padding)

    # At any kernel and bias: a convolution is linear in both.
    return jax.vjp(convolved, jnp.zeros(shape, x.dtype), jnp.zeros(shape[3:], x.dtype))[1](g)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _native_gradient(x, g, shape, stride, padding) -> Any:
    return tuple(native.convolve_gradient(x, g, shape, stride, padding))


def _native_gradient_fwd(x, g, *static):
    return _native_gradient(x, g, *static), (x, g)


def _native_gradient_bwd(shape, stride, padding, residuals, cotangents):
    """For a gradient through a guided sampler, whose steps hold a gradient themselves."""

    def gradient(x, g):
        return _gradient_by_xla(x, g, shape, stride, padding)

    return jax.vjp(gradient, *residuals)[1](cotangents)


_native_gradient.defvjp(_native_gradient_fwd, _native_gradient_bwd)


def norms_natively(x) -> bool:
    """Whether `jaxdiff.nn.native` normalises groups of the channels of x.

    CPU in float32 with whole vectors of channels (benchmarks/choices.md).
    """
    return natively(x) and x.shape[-1] % 16 == 0


def natively(x) -> bool:
    """Whether `jaxdiff.nn.native` computes for an array like x: then no image depends on its batch."""
    return x.dtype == jnp.float32 and jax.default_backend() == "cpu" and native.available()
