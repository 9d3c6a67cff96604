"""The layers a UNet2D is made of: NHWC, torch's attribute names, diffusers' arithmetic."""

from functools import partial
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from jaxdiff.nn.abstract import Linear, initializer, normal
from jaxdiff.nn.convolve import Padding, convolve, convolve_gradient
from jaxdiff.nn.norm import GroupNorm
from jaxdiff.util.platform import choices


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def conv2d(
    x: jax.Array, kernel: jax.Array, bias: jax.Array, stride: int, padding: Padding
) -> jax.Array:
    """Cross-correlation of x [n, H, W, I] with kernel [h, w, I, O], plus bias [O].

    XLA's CPU backend runs a convolution in a loop body on one thread unless it is exactly NHWC
    by HWIO (jax#12868), and the transpose rule's is not: its kernel is flipped and swapped by
    dimension numbers. So the gradient is written out, as such a convolution with the flipped
    kernel materialised: 5 times faster inside `lax.scan`, same values. The price is forward mode.
    """
    return convolve(x, kernel, bias, stride, padding)


def _conv2d_fwd(x, kernel, bias, stride, padding):
    return conv2d(x, kernel, bias, stride, padding), (x, kernel)


def _conv2d_bwd(stride, padding, residuals, g):
    x, kernel = residuals
    dx = _input_gradient(g, kernel, stride, padding, x.shape[1:3])
    return dx, *convolve_gradient(x, g, kernel, stride, padding)


conv2d.defvjp(_conv2d_fwd, _conv2d_bwd)


def _input_gradient(g, kernel, stride, padding, shape):
    """dx[stride·i − low + d] += g[i] kernel[d]: one dense convolution of g for each phase of dx.

    Of an x whose height and width are multiples of the stride, as every UNet2D's are. Spreading g
    with zeros for one convolution instead does stride² times the work, unless the platform has
    kernels of its own for that (`Choices.phases`).
    """
    if not choices().phases:
        x = jax.ShapeDtypeStruct((g.shape[0], *shape, kernel.shape[2]), g.dtype)
        form = ("NHWC", "HWIO", "NHWC")
        convolution = partial(
            lax.conv_general_dilated,
            rhs=kernel,
            window_strides=(stride, stride),
            padding=padding,
            dimension_numbers=form,
        )
        return jax.linear_transpose(convolution, x)(g)[0]
    swapped = kernel.swapaxes(2, 3)
    no_bias = jnp.zeros(kernel.shape[2], g.dtype)

    def axis(a, phase):  # the taps of the kernel that reach it, backwards, and the padding of g
        target = phase + padding[a][0]
        last = kernel.shape[a] - 1
        last -= (last - target) % stride
        after = shape[a] // stride - g.shape[1 + a] + target // stride
        return slice(last, None, -stride), ((last - target) // stride, after)

    def dx(i, j):
        (rows, pad_rows), (columns, pad_columns) = axis(0, i), axis(1, j)
        # The barrier keeps XLA from folding the flip back into the convolution.
        part = lax.optimization_barrier(swapped[rows, columns])
        return conv2d(g, part, no_bias, 1, (pad_rows, pad_columns))

    return interleave([[dx(i, j) for j in range(stride)] for i in range(stride)])


def interleave(phases):
    """The image [n, sH, sW, C] whose every s-th row and column from (i, j) is phases[i][j]."""
    n, h, w, c = phases[0][0].shape
    s = len(phases)
    return jnp.stack([jnp.stack(row, 3) for row in phases], 2).reshape(n, s * h, s * w, c)


class Conv(nnx.Module):
    """A 2-D convolution; kernel [h, w, in, out]."""

    def __init__(
        self, in_channels: int, out_channels: int, size: int, *, stride=1, padding=None, rngs
    ):
        # torch's default
        init = initializer(nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform"))
        self.kernel = nnx.Param(init(rngs.params(), (size, size, in_channels, out_channels)))
        self.bias = nnx.Param(jnp.zeros(out_channels))
        self.stride = stride
        self.padding = ((size // 2, size // 2),) * 2 if padding is None else padding

    def __call__(self, x):
        y = conv2d(x, self.kernel[...], self.bias[...], self.stride, self.padding)
        return cast(jax.Array, y)


def activation(name: str):
    """The activation that diffusers calls `name`."""
    return {
        "swish": jax.nn.silu,
        "silu": jax.nn.silu,
        "mish": jax.nn.mish,
        "gelu": partial(jax.nn.gelu, approximate=False),
        "relu": jax.nn.relu,
    }[name]


def upsample_nearest(x: jax.Array) -> jax.Array:
    """Each pixel becomes 2 by 2."""
    n, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (n, h, 2, w, 2, c)).reshape(n, 2 * h, 2 * w, c)


def average_pool(x: jax.Array) -> jax.Array:
    """Mean over 2 by 2 pixels."""
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4))


def fir_downsample(x: jax.Array) -> jax.Array:
    """Halve with the filter (1, 3, 3, 1)/8 along each axis (StyleGAN2's `downsample_2d`)."""
    for axis in (1, 2):
        x = _fir(x, axis, pad=(1, 1, 0), stride=2, gain=1)
    return x


def fir_downsample_inside(x: jax.Array) -> jax.Array:
    """`fir_downsample` of an image with a border of one pixel, and no zeros beyond it."""
    for axis in (1, 2):
        x = _fir(x, axis, pad=(0, 0, 0), stride=2, gain=1)
    return x


def fir_upsample(x: jax.Array) -> jax.Array:
    """Double with the filter (1, 3, 3, 1)/4 along each axis (StyleGAN2's `upsample_2d`)."""
    for axis in (1, 2):
        x = _fir(x, axis, pad=(2, 2, 1), stride=1, gain=2)
    return x


def _fir(x, axis, pad, stride, gain):
    config = [(0, 0, 0)] * 4
    config[axis] = pad
    x = lax.pad(x, jnp.zeros((), x.dtype), config)
    stop = x.shape[axis] - 3
    taps = [
        lax.slice_in_dim(x, k, stop + k, stride, axis) * (gain * weight / 8)
        for k, weight in enumerate((1, 3, 3, 1))
    ]
    return taps[0] + taps[1] + taps[2] + taps[3]


def positional_embedding(t: jax.Array, dim: int, flip_sin_to_cos: bool, freq_shift: float):
    """Sinusoidal features [n, dim] of timesteps [n]: sin(t f_k), cos(t f_k).

    f_k = exp(−ln 10000 · k/(dim/2 − freq_shift)). As in diffusers the frequencies are rounded at
    every operation in float32, unless t is float64.
    """
    real = np.float64 if t.dtype == jnp.float64 else np.float32
    half = dim // 2
    exponent = real(-np.log(10000)) * np.arange(half, dtype=real) / real(half - freq_shift)
    angle = t[:, None] * np.exp(exponent)[None]
    parts = [jnp.sin(angle), jnp.cos(angle)]
    embedding = jnp.concatenate(parts[::-1] if flip_sin_to_cos else parts, -1)
    return jnp.pad(embedding, ((0, 0), (0, dim % 2)))


class FourierProjection(nnx.Module):
    """Random Fourier features of log t."""

    def __init__(self, channels: int, *, rngs):
        self.kernel = nnx.Param(16 * normal(rngs.params(), (channels,)))

    def __call__(self, t):
        angle = jnp.log(t)[:, None] * self.kernel[...][None] * 2 * np.pi
        return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)


class TimestepEmbedding(nnx.Module):
    """Linear, SiLU, linear."""

    def __init__(self, in_channels: int, dim: int, *, rngs):
        self.linear_1 = Linear(in_channels, dim, rngs=rngs)
        self.linear_2 = Linear(dim, dim, rngs=rngs)

    def __call__(self, x):
        return self.linear_2(jax.nn.silu(self.linear_1(x)))


class Resnet(nnx.Module):
    """diffusers' ResnetBlock2D: norm, act, (resize), conv, time, norm, act, conv, shortcut."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        config,
        *,
        groups: int,
        groups_out: int | None = None,
        rescale: float = 1.0,
        resize=None,
        shortcut: bool | None = None,
        rngs,
    ):
        self.act_fn = config.act_fn  # a name: functions need not survive pickling
        self.scale_shift = config.resnet_time_scale_shift == "scale_shift"
        self.resize = resize
        self.rescale = rescale
        self.norm1 = GroupNorm(in_channels, groups, config.norm_eps)
        self.conv1 = Conv(in_channels, out_channels, 3, rngs=rngs)
        time, width = config.time_embed_dim, out_channels * (2 if self.scale_shift else 1)
        self.time_emb_proj = nnx.data(None) if time is None else Linear(time, width, rngs=rngs)
        self.norm2 = GroupNorm(out_channels, groups_out or groups, config.norm_eps)
        # A dropout without a random stream of its own: the model holds weights and nothing else.
        self.dropout = nnx.Dropout(config.dropout, deterministic=True) if config.dropout else None
        self.conv2 = Conv(out_channels, out_channels, 3, rngs=rngs)
        if shortcut is None:
            shortcut = in_channels != out_channels
        self.conv_shortcut = (
            Conv(in_channels, out_channels, 1, rngs=rngs) if shortcut else nnx.data(None)
        )

    def __call__(self, x, temb, rngs=None):
        act = activation(self.act_fn)
        h = self.norm1(x, act)
        if self.resize is not None:
            x, h = self.resize(x), self.resize(h)
        h = self.conv1(h)
        if self.time_emb_proj is None:
            temb = 0
        else:
            temb = self.time_emb_proj(act(temb))[:, None, None]
        if self.scale_shift:
            scale, shift = jnp.split(temb, 2, -1)
            h = act(self.norm2(h) * (1 + scale) + shift)
        else:
            h = self.norm2(h + temb, act)
        if self.dropout is not None:
            h = self.dropout(h, rngs=rngs)
        h = self.conv2(h)
        if self.conv_shortcut is not None:
            x = self.conv_shortcut(x)
        return (x + h) / self.rescale


class Downsample(nnx.Module):
    """Halve by a strided 3×3 convolution; padding 0 means one row and column at the far end."""

    def __init__(self, channels: int, padding: int, *, rngs):
        pad = ((0, 1), (0, 1)) if padding == 0 else ((1, 1), (1, 1))
        self.conv = Conv(channels, channels, 3, stride=2, padding=pad, rngs=rngs)

    def __call__(self, x, temb, rngs=None):
        return self.conv(x)


class Upsample(nnx.Module):
    """Double by nearest neighbour, then a 3×3 convolution."""

    def __init__(self, channels: int, *, rngs):
        self.conv = Conv(channels, channels, 3, rngs=rngs)

    def __call__(self, x, temb, rngs=None):
        return self.conv(upsample_nearest(x))
