"""guided-diffusion's network in torch, written from its paper and the names of its checkpoints.

Source: Dhariwal and Nichol 2021 (arXiv 2105.05233), section 3 and appendix. `levels` with
attention are given by number; sampling by residual blocks, as its 256² networks have it. A converted
checkpoint is compared with it: diffusers cannot read the files.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from jaxdiff.checkpoints.adm import adm_config
from jaxdiff.checkpoints.names import unwrapped
from jaxdiff.checkpoints.weights import open_file


class Resnet(nn.Module):
    def __init__(self, ins, outs, time, shift=True, resize=None):
        super().__init__()
        self.in_layers = nn.Sequential(
            nn.GroupNorm(32, ins), nn.SiLU(), nn.Conv2d(ins, outs, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time, outs * (2 if shift else 1)))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(32, outs), nn.SiLU(), nn.Identity(), nn.Conv2d(outs, outs, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if ins == outs else nn.Conv2d(ins, outs, 1)
        self.shift, self.resize = shift, resize or (lambda x: x)

    def forward(self, x, emb):
        norm, act, conv = self.in_layers
        h, x = conv(self.resize(act(norm(x)))), self.resize(x)
        emb = self.emb_layers(emb)[:, :, None, None]
        norm, *rest = self.out_layers
        if self.shift:
            scale, shift = emb.chunk(2, 1)
            h = norm(h) * (1 + scale) + shift
        else:
            h = norm(h + emb)
        for layer in rest:
            h = layer(h)
        return self.skip_connection(x) + h


class Attention(nn.Module):
    def __init__(self, channels, head, new_order):
        super().__init__()
        self.norm = nn.GroupNorm(32, channels)
        self.qkv, self.proj_out = (
            nn.Conv1d(channels, 3 * channels, 1),
            nn.Conv1d(channels, channels, 1),
        )
        self.head, self.new_order = head, new_order

    def forward(self, x, emb):
        n, c = x.shape[:2]
        heads, d = c // self.head, self.head
        qkv = self.qkv(self.norm(x.reshape(n, c, -1)))
        if self.new_order:  # all queries, then all keys, then all values
            q, k, v = qkv.reshape(n, 3, heads, d, -1).unbind(1)
        else:  # head by head
            q, k, v = qkv.reshape(n, heads, 3, d, -1).unbind(2)
        weights = torch.softmax(torch.einsum("nhct,nhcs->nhts", q, k) / math.sqrt(d), -1)
        out = torch.einsum("nhts,nhcs->nhct", weights, v).reshape(n, c, -1)
        return x + self.proj_out(out).reshape(x.shape)


class Conv(nn.Module):
    """A convolution after or before a change of size, under guided-diffusion's name for it."""

    def __init__(self, channels, name):
        super().__init__()
        self.add_module(name, nn.Conv2d(channels, channels, 3, 2 if name == "op" else 1, 1))
        self.name = name

    def forward(self, x, emb):
        x = x if self.name == "op" else F.interpolate(x, scale_factor=2.0)
        return getattr(self, self.name)(x)


class ADM(nn.Module):
    input_blocks: Any
    middle_block: Any
    output_blocks: Any

    def __init__(
        self, channels, multipliers, blocks, attention, head=64, outs=6, new_order=False,
        shift=True, by_resnet=True, classes=None,
    ):  # fmt: skip
        super().__init__()
        self.channels, time = channels, 4 * channels
        self.time_embed = nn.Sequential(nn.Linear(channels, time), nn.SiLU(), nn.Linear(time, time))
        if classes:
            self.label_emb = nn.Embedding(classes, time)

        def resnet(ins, outs, resize=None):
            return Resnet(ins, outs, time, shift, resize)

        def level_block(level, ins, outs):
            block = nn.ModuleList([resnet(ins, outs)])
            if level in attention:
                block.append(Attention(outs, head, new_order))
            return block

        width, kept = channels, [channels]
        self.input_blocks = nn.ModuleList([nn.ModuleList([nn.Conv2d(3, channels, 3, padding=1)])])
        for level, multiplier in enumerate(multipliers):
            for _ in range(blocks):
                self.input_blocks.append(level_block(level, width, width := channels * multiplier))
                kept.append(width)
            if level < len(multipliers) - 1:
                half = (
                    resnet(width, width, lambda x: F.avg_pool2d(x, 2))
                    if by_resnet
                    else Conv(width, "op")
                )
                self.input_blocks.append(nn.ModuleList([half]))
                kept.append(width)
        self.middle_block = nn.ModuleList(
            [resnet(width, width), Attention(width, head, new_order), resnet(width, width)]
        )
        self.output_blocks = nn.ModuleList()
        for level, multiplier in reversed(list(enumerate(multipliers))):
            for i in range(blocks + 1):
                block = level_block(level, width + kept.pop(), width := channels * multiplier)
                if level and i == blocks:
                    double = resnet(width, width, lambda x: F.interpolate(x, scale_factor=2.0))
                    block.append(double if by_resnet else Conv(width, "conv"))
                self.output_blocks.append(block)
        self.out = nn.Sequential(
            nn.GroupNorm(32, width), nn.SiLU(), nn.Conv2d(width, outs, 3, padding=1)
        )

    def forward(self, x, t, labels=None):
        half = self.channels // 2
        frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=x.dtype) / half)
        angle = t[:, None] * frequencies
        emb = self.time_embed(torch.cat([angle.cos(), angle.sin()], -1))
        if labels is not None:
            emb = emb + self.label_emb(labels)
        (conv,), *inputs = self.input_blocks
        h = conv(x)
        kept = [h]
        for block in inputs:
            for layer in block:
                h = layer(h, emb)
            kept.append(h)
        for layer in self.middle_block:
            h = layer(h, emb)
        for block in self.output_blocks:
            h = torch.cat([h, kept.pop()], 1)
            for layer in block:
                h = layer(h, emb)
        return self.out(h)


FFHQ: dict[str, Any] = dict(channels=128, multipliers=(1, 1, 2, 2, 4, 4), blocks=1, attention={4})
IMAGENET: dict[str, Any] = dict(
    channels=256, multipliers=(1, 1, 2, 2, 4, 4), blocks=2, attention={3, 4, 5}
)


def load(path: Path, config: Mapping[str, Any]) -> ADM:
    """The network of a checkpoint, with its weights; `config` as `jd.prior` takes it."""
    c = adm_config(unwrapped(open_file(path)), config)
    widths = c.block_out_channels
    network = ADM(
        channels=widths[0],
        multipliers=[width // widths[0] for width in widths],
        blocks=c.layers_per_block,
        attention={i for i, kind in enumerate(c.down_block_types) if "Attn" in kind},
        head=c.head_dim(widths[-1]),
        outs=c.out_channels,
        new_order=config.get("use_new_attention_order", False),
        shift=c.resnet_time_scale_shift == "scale_shift",
        by_resnet=c.downsample_type == "resnet",
        classes=c.num_class_embeds,
    )
    network.load_state_dict(unwrapped(torch.load(path, weights_only=True)))
    return network
