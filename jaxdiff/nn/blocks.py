"""The blocks that a UNet2D is made of: what diffusers' block types do between a size and the next.

A block gets `run`, by which it evaluates its layers: run(layer, *parts) is the layer on the channels
of all parts.
"""

from math import sqrt

import jax
from flax import nnx

from jaxdiff.nn.attention import Attention
from jaxdiff.nn.layers import (
    Conv,
    Downsample,
    Resnet,
    Upsample,
    average_pool,
    fir_downsample,
    fir_upsample,
    upsample_nearest,
)
from jaxdiff.nn.norm import GroupNorm


def _attention(channels, config, rescale=1.0, *, groups, rngs):
    head_dim = config.head_dim(channels)
    return Attention(channels, head_dim, groups, config.norm_eps, rescale, rngs=rngs)


def _pairs(widths, channels, kind, config, *, rngs):
    """A block's resnets, one for each input width, and an attention behind each where it has them."""
    groups = config.norm_num_groups
    resnets, attentions = nnx.List(), nnx.List()
    for width in widths:
        resnets.append(Resnet(width, channels, config, groups=groups, rngs=rngs))
        if "Attn" in kind:
            attentions.append(_attention(channels, config, groups=groups, rngs=rngs))
    return resnets, attentions


def _resize(kind, how, plain, channels, config, resize, *, rngs):
    """What follows them: a resnet that resizes, by its name or its type, or a convolution."""
    if kind.startswith("Resnet") or ("Attn" in kind and how == "resnet"):
        groups = config.norm_num_groups
        return Resnet(channels, channels, config, groups=groups, resize=resize, rngs=rngs)
    return plain()


class DownBlock(nnx.Module):
    """DownBlock2D, AttnDownBlock2D and ResnetDownsampleBlock2D."""

    def __init__(self, kind, in_channels, channels, config, *, last, rngs):
        widths = [in_channels] + [channels] * (config.layers_per_block - 1)
        self.resnets, self.attentions = _pairs(widths, channels, kind, config, rngs=rngs)
        self.downsamplers = nnx.List()
        if not last:
            self.downsamplers.append(
                _resize(
                    kind,
                    config.downsample_type,
                    lambda: Downsample(channels, config.downsample_padding, rngs=rngs),
                    channels,
                    config,
                    average_pool,
                    rngs=rngs,
                )
            )

    def __call__(self, h, skip, run):
        outputs = []
        for i, resnet in enumerate(self.resnets):
            h = run(resnet, h)
            if self.attentions:
                h = run(self.attentions[i], h)
            outputs.append(h)
        for downsampler in self.downsamplers:
            h = run(downsampler, h)
            outputs.append(h)
        return h, skip, outputs


class SkipDownBlock(nnx.Module):
    """SkipDownBlock2D and AttnSkipDownBlock2D: the halved picture is added to the features."""

    def __init__(self, kind, in_channels, channels, config, *, last, rngs):
        self.resnets, self.attentions = nnx.List(), nnx.List()
        for i in range(config.layers_per_block):
            width = in_channels if i == 0 else channels
            self.resnets.append(
                Resnet(
                    width,
                    channels,
                    config,
                    groups=min(width // 4, 32),
                    groups_out=min(channels // 4, 32),
                    rescale=sqrt(2),
                    rngs=rngs,
                )
            )
            if "Attn" in kind:
                self.attentions.append(_attention(channels, config, sqrt(2), groups=32, rngs=rngs))
        self.last = last
        if not last:
            self.resnet_down = Resnet(
                channels,
                channels,
                config,
                groups=min(channels // 4, 32),
                rescale=sqrt(2),
                resize=fir_downsample,
                shortcut=True,
                rngs=rngs,
            )
            self.skip_conv = Conv(3, channels, 1, rngs=rngs)

    def __call__(self, h, skip, run):
        outputs = []
        for i, resnet in enumerate(self.resnets):
            h = run(resnet, h)
            if self.attentions:
                h = run(self.attentions[i], h)
            outputs.append(h)
        if not self.last:
            skip = fir_downsample(skip)
            h = self.skip_conv(skip) + run(self.resnet_down, h)
            outputs.append(h)
        return h, skip, outputs


class MidBlock(nnx.Module):
    """UNetMidBlock2D: resnet, attention, resnet."""

    def __init__(self, channels, config, *, rngs):
        groups = config.norm_num_groups or min(channels // 4, 32)
        scale = config.mid_block_scale_factor
        attn_groups = config.attn_norm_num_groups
        if attn_groups is None and config.resnet_time_scale_shift == "default":
            attn_groups = groups
        self.resnets = nnx.List(
            Resnet(channels, channels, config, groups=groups, rescale=scale, rngs=rngs)
            for _ in range(2)
        )
        self.attentions = nnx.List()
        if config.add_attention:
            self.attentions.append(
                _attention(channels, config, scale, groups=attn_groups, rngs=rngs)
            )

    def __call__(self, h, run):
        h = run(self.resnets[0], h)
        for attention in self.attentions:
            h = run(attention, h)
        return run(self.resnets[1], h)


class UpBlock(nnx.Module):
    """UpBlock2D, AttnUpBlock2D and ResnetUpsampleBlock2D."""

    def __init__(self, kind, below, beside, channels, config, *, last, rngs):
        widths = [width for width, _ in _up_widths(below, beside, channels, config)]
        self.resnets, self.attentions = _pairs(widths, channels, kind, config, rngs=rngs)
        self.upsamplers = nnx.List()
        if not last:
            self.upsamplers.append(
                _resize(
                    kind,
                    config.upsample_type,
                    lambda: Upsample(channels, rngs=rngs),
                    channels,
                    config,
                    upsample_nearest,
                    rngs=rngs,
                )
            )

    def __call__(self, h, skip, beside, run):
        for i, resnet in enumerate(self.resnets):
            h = run(resnet, h, beside[-1 - i])
            if self.attentions:
                h = run(self.attentions[i], h)
        for upsampler in self.upsamplers:
            h = run(upsampler, h)
        return h, skip


class SkipUpBlock(nnx.Module):
    """SkipUpBlock2D and AttnSkipUpBlock2D: the picture is built up beside the features."""

    def __init__(self, kind, below, beside, channels, config, *, last, rngs):
        attn = "Attn" in kind
        self.resnets, self.attentions = nnx.List(), nnx.List()
        groups_out = min(channels // 4, 32)
        for width, beside_width in _up_widths(below, beside, channels, config):
            # diffusers' AttnSkipUpBlock2D divides only the second term by 4; weights depend on it.
            groups = (width - beside_width) + beside_width // 4 if attn else width // 4
            self.resnets.append(
                Resnet(
                    width,
                    channels,
                    config,
                    groups=min(groups, 32),
                    groups_out=groups_out,
                    rescale=sqrt(2),
                    rngs=rngs,
                )
            )
        if attn:
            self.attentions.append(_attention(channels, config, sqrt(2), groups=32, rngs=rngs))
        self.last = last
        if not last:
            self.resnet_up = Resnet(
                channels,
                channels,
                config,
                groups=groups_out,
                rescale=sqrt(2),
                resize=fir_upsample,
                shortcut=True,
                rngs=rngs,
            )
            self.skip_conv = Conv(channels, 3, 3, rngs=rngs)
            self.skip_norm = GroupNorm(channels, groups_out, config.norm_eps)

    def __call__(self, h, skip, beside, run):
        for i, resnet in enumerate(self.resnets):
            h = run(resnet, h, beside[-1 - i])
        for attention in self.attentions:
            h = run(attention, h)
        skip = None if skip is None else fir_upsample(skip)
        if not self.last:
            picture = self.skip_conv(self.skip_norm(h, jax.nn.silu))
            skip = picture if skip is None else skip + picture
            h = run(self.resnet_up, h)
        return h, skip


def _up_widths(below, beside, channels, config):
    """(input channels, channels that come from the down path) of each resnet of an up block."""
    count = config.layers_per_block + 1
    for i in range(count):
        kept = beside if i == count - 1 else channels
        yield (below if i == 0 else channels) + kept, kept
