"""Group normalisation: by `jaxdiff.nn.native` on CPUs that have it, by XLA elsewhere."""

from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from jaxdiff.nn import native
from jaxdiff.nn.convolve import norms_natively


@partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _native_norm(x, scale, bias, groups: int, eps: float, silu: bool) -> Any:
    """Group normalisation of [n, m, C] by `jaxdiff.nn.native`, and the statistics that its gradient needs."""
    y, stats = native.group_norm(x, scale, bias, groups, eps, silu)
    return y, stats


def _native_norm_fwd(x, scale, bias, groups, eps, silu):
    y, stats = cast(Any, _native_norm(x, scale, bias, groups, eps, silu))
    return (y, stats), (x, scale, bias, stats)


def _native_norm_bwd(groups, eps, silu, residuals, cotangents):
    return _native_norm_gradient(*residuals, cotangents[0], groups, eps, silu)


_native_norm.defvjp(_native_norm_fwd, _native_norm_bwd)


@partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7))
def _native_norm_gradient(x, scale, bias, stats, dy, groups, eps, silu):
    found = native.group_norm_gradient(x, stats, dy, scale, bias, groups, eps, silu)
    dx, dscale, dbias = cast(Any, found)
    return dx, dscale.sum(0), dbias.sum(0)


def _native_norm_gradient_fwd(x, scale, bias, stats, dy, groups, eps, silu):
    found = _native_norm_gradient(x, scale, bias, stats, dy, groups, eps, silu)
    return found, (x, scale, bias, stats, dy)


def _native_norm_gradient_bwd(groups, eps, silu, residuals, cotangents):
    """By XLA, with the statistics as functions of x: see `convolve._native_gradient_bwd`."""
    x, scale, bias, stats, dy = residuals

    def gradient(x, scale, bias, dy):
        def norm(x, scale, bias):
            y = _norm_by_xla(x, scale, bias, groups, eps)
            return jax.nn.silu(y) if silu else y

        return jax.vjp(norm, x, scale, bias)[1](dy)

    dx, dscale, dbias, ddy = jax.vjp(gradient, x, scale, bias, dy)[1](cotangents)
    return dx, dscale, dbias, jnp.zeros_like(stats), ddy


_native_norm_gradient.defvjp(_native_norm_gradient_fwd, _native_norm_gradient_bwd)


def _norm_by_xla(x, scale, bias, groups: int, eps: float):
    """Group normalisation of [n, m, C]."""
    n, pixels, c = x.shape
    # Sums times a reciprocal, not means: whether XLA turns a division by a constant into such a
    # product depends on how many devices the program is for, and so would the rounding.
    reciprocal = groups / (pixels * c)

    def group_mean(per_pixel):  # over pixels first: contiguous along the channels
        per_group = per_pixel.sum(1).reshape(n, groups, -1).sum(-1, keepdims=True)
        per_group = per_group * reciprocal
        return jnp.broadcast_to(per_group, (n, groups, c // groups)).reshape(n, 1, c)

    mean = group_mean(x)
    scale = scale * lax.rsqrt(group_mean(jnp.square(x - mean)) + eps)
    return x * scale + (bias - mean * scale)


class GroupNorm(nnx.Module):
    """Group normalisation of [n, H, W, C], and an activation of it.

    Statistics in float32 at least, and about the mean.
    """

    def __init__(self, channels: int, groups: int, eps: float):
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.groups = groups
        self.eps = eps

    def __call__(self, x, act=None):
        n, c = x.shape[0], x.shape[-1]
        pixels, scale, bias = x.reshape(n, -1, c), self.scale[...], self.bias[...]
        if norms_natively(x):
            silu = act is jax.nn.silu
            y, _ = cast(Any, _native_norm(pixels, scale, bias, self.groups, self.eps, silu))
            y = y.reshape(x.shape)
            return y if act is None or silu else act(y)
        pixels = pixels.astype(jnp.promote_types(x.dtype, jnp.float32))
        y = _norm_by_xla(pixels, scale, bias, self.groups, self.eps)
        y = y.reshape(x.shape).astype(x.dtype)
        return y if act is None else act(y)
