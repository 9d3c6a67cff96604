"""VQModel: the autoencoder of latent diffusion whose latents are vectors of a codebook."""

import dataclasses
import math
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxdiff.nn.abstract import Embed
from jaxdiff.nn.blocks import DownBlock, MidBlock
from jaxdiff.nn.config import ACTIVATIONS
from jaxdiff.nn.layers import Conv, Resnet, Upsample
from jaxdiff.nn.norm import GroupNorm
from jaxdiff.nn.remat import runner
from jaxdiff.util.pytree import frozen

_LEVELS, _LAYERS = 12, 64  # at most: a file must not decide how long a network takes to build


@frozen
class VQConfig:
    """The fields of diffusers' `VQModel`, with its names and its defaults.

    `vq_embed_dim=None` means codes of `latent_channels` channels.

    Raises:
        ValueError: names the field at fault, what was expected, and what came.

    Example:
        >>> VQConfig(block_out_channels=(32, 64), down_block_types=("DownEncoderBlock2D",) * 2,
        ...          up_block_types=("UpDecoderBlock2D",) * 2).downsampling
        2
    """

    in_channels: int = 3
    out_channels: int = 3
    down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",)
    up_block_types: tuple[str, ...] = ("UpDecoderBlock2D",)
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    act_fn: str = "silu"
    latent_channels: int = 3
    sample_size: int | tuple[int, int] = 32
    num_vq_embeddings: int = 256
    norm_num_groups: int = 32
    vq_embed_dim: int | None = None
    scaling_factor: float = 0.18215
    norm_type: str = "group"
    mid_block_add_attention: bool = True
    lookup_from_codebook: bool = False
    force_upcast: bool = False

    # What the blocks shared with UNet2D ask for, and every VQModel has.
    norm_eps = 1e-6
    downsample_padding = 0
    downsample_type = "conv"
    time_embed_dim = None
    resnet_time_scale_shift = "default"
    dropout = 0.0
    mid_block_scale_factor = 1
    attn_norm_num_groups = None

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "VQConfig":
        """Read a `config.json`: fields starting with `_` are diffusers' own and are ignored.

        One without a `scaling_factor`, as CompVis/ldm-celebahq-256's, is older than that field: its
        latents are as they come, and diffusers, which takes 0.18215, decodes them wrongly (diffusers#6725).

        Raises:
            ValueError: for a class that is not VQModel, and for a field at fault.
        """
        name = config.get("_class_name", "VQModel")
        if name != "VQModel":
            raise ValueError(f"_class_name: expected 'VQModel', got {name!r}")
        known = {f.name for f in dataclasses.fields(cls)}
        fields = {k: v for k, v in config.items() if not k.startswith("_")}
        if unknown := sorted(set(fields) - known):
            warnings.warn(f"{', '.join(unknown)}: no field of VQModel, ignored", stacklevel=2)
        given: dict[str, Any] = {k: v for k, v in fields.items() if k in known}
        return cls(**{"scaling_factor": 1.0, **given})

    def to_dict(self) -> dict[str, Any]:
        """The dictionary that `config.json` holds."""
        return {"_class_name": "VQModel"} | dataclasses.asdict(self)

    @property
    def add_attention(self) -> bool:
        """Whether the middle has an attention."""
        return self.mid_block_add_attention

    @property
    def embed_dim(self) -> int:
        """Channels of a code."""
        return self.vq_embed_dim or self.latent_channels

    @property
    def downsampling(self) -> int:
        """Pixels of an image along the side of one latent pixel."""
        return 2 ** (len(self.block_out_channels) - 1)

    def head_dim(self, channels: int) -> int:
        """Channels of one attention head: all of them."""
        return channels

    def __post_init__(self):
        def fail(name, expected):
            raise ValueError(f"{name}: expected {expected}, got {getattr(self, name)!r}")

        def is_size(value):
            return type(value) is int and value >= 1

        for name in (
            "in_channels",
            "out_channels",
            "layers_per_block",
            "latent_channels",
            "num_vq_embeddings",
            "norm_num_groups",
        ):
            if not is_size(getattr(self, name)):
                fail(name, "a positive integer")
        if self.vq_embed_dim is not None and not is_size(self.vq_embed_dim):
            fail("vq_embed_dim", "a positive integer or null")
        if self.layers_per_block > _LAYERS:
            fail("layers_per_block", f"at most {_LAYERS}")
        widths, groups = self.block_out_channels, self.norm_num_groups
        levels = len(widths) if isinstance(widths, tuple) else 0
        if not 1 <= levels <= _LEVELS or not all(map(is_size, widths)):
            fail("block_out_channels", f"a list of one to {_LEVELS} positive integers")
        if any(width % groups for width in widths):
            fail("block_out_channels", f"multiples of norm_num_groups={groups}")
        for name, block in (
            ("down_block_types", "DownEncoderBlock2D"),
            ("up_block_types", "UpDecoderBlock2D"),
        ):
            if getattr(self, name) != (block,) * len(widths):
                fail(name, f"{len(widths)} times {block}")
        if self.act_fn not in ACTIVATIONS:
            fail("act_fn", "one of " + ", ".join(ACTIVATIONS))
        scaling = self.scaling_factor
        if type(scaling) not in (int, float) or not 0 < scaling < math.inf:
            fail("scaling_factor", "a positive number")
        if self.norm_type != "group":
            fail("norm_type", "'group'")
        if self.lookup_from_codebook:
            fail("lookup_from_codebook", "false: its latents are vectors, not their numbers")


class VQModel(nnx.Module):
    """The autoencoder of diffusers' VQModel: an encoder, a codebook, a decoder.

    A pytree whose leaves are the weights; attribute names equal torch's module names. Latents are
    h × w smaller by `config.downsampling`, as they come from the encoder: a pipeline's
    `scaling_factor` is applied by the caller.

    Args:
        config: a `VQConfig` or the dictionary of a `config.json`.
        rngs: `flax.nnx.Rngs` for the initial weights.

    Source: Rombach et al. 2022 (arXiv 2112.10752); van den Oord et al. 2017 (arXiv 1711.00937).

    Example:
        >>> from jaxdiff.nn.abstract import abstract
        >>> config = VQConfig(block_out_channels=(8,), norm_num_groups=4)
        >>> vq = abstract(lambda rngs: VQModel(config, rngs=rngs))
        >>> jax.eval_shape(VQModel.decode, vq, jnp.zeros((1, 4, 4, 3))).shape
        (1, 4, 4, 3)
    """

    def __init__(self, config: VQConfig | Mapping, *, rngs):
        self.config = c = config if isinstance(config, VQConfig) else VQConfig.from_dict(config)
        self.encoder = Encoder(c, rngs=rngs)
        self.quant_conv = Conv(c.latent_channels, c.embed_dim, 1, rngs=rngs)
        self.quantize = Codebook(c.num_vq_embeddings, c.embed_dim, rngs=rngs)
        self.post_quant_conv = Conv(c.embed_dim, c.latent_channels, 1, rngs=rngs)
        self.decoder = Decoder(c, rngs=rngs)

    @property
    def dtype(self):
        """The dtype of the weights and of the computation."""
        return self.quant_conv.kernel.dtype

    def encode(self, x, *, remat: bool = False) -> jax.Array:
        """Latents [n, h, w, C], not quantised, of images [n, H, W, in_channels] in [-1, 1].

        Raises:
            ValueError: for an image of another number of channels, or whose height or width is no
                multiple of `config.downsampling`.
        """
        c = self.config
        if x.ndim != 4 or x.shape[-1] != c.in_channels:
            raise ValueError(f"x: expected [n, H, W, {c.in_channels}], got {list(x.shape)}")
        if x.shape[1] % c.downsampling or x.shape[2] % c.downsampling:
            raise ValueError(f"x: height and width must be multiples of {c.downsampling}")
        return self.quant_conv(self.encoder(x.astype(self.dtype), remat))

    def decode(self, z, *, quantize: bool = True, remat: bool = False) -> jax.Array:
        """Images [n, H, W, out_channels] in about [-1, 1] of latents z [n, h, w, C].

        z is first replaced by its nearest codes, through which its gradient passes as if they
        were z itself; not if `quantize` is False.

        Raises:
            ValueError: for latents of another number of channels.
        """
        c = self.config
        if z.ndim != 4 or z.shape[-1] != c.embed_dim:
            raise ValueError(f"z: expected [n, h, w, {c.embed_dim}], got {list(z.shape)}")
        z = z.astype(self.dtype)
        z = self.quantize(z) if quantize else z
        return self.decoder(self.post_quant_conv(z), remat)


class Codebook(nnx.Module):
    """The nearest of n vectors, in the place of each pixel."""

    def __init__(self, count: int, channels: int, *, rngs):
        self.embedding = Embed(count, channels, rngs=rngs)

    def __call__(self, z):
        codes = self.embedding.embedding[...]
        # |z − e|² but for |z|², which all codes share
        distances = jnp.square(codes).sum(-1) - 2 * (z @ codes.T)
        nearest = codes[jnp.argmin(distances, -1)]
        return z + jax.lax.stop_gradient(nearest - z)


class Encoder(nnx.Module):
    """Images to latents."""

    def __init__(self, c: VQConfig, *, rngs):
        widths = c.block_out_channels
        self.conv_in = Conv(c.in_channels, widths[0], 3, rngs=rngs)
        self.down_blocks = nnx.List(
            DownBlock(
                kind, widths[max(i - 1, 0)], widths[i], c, last=i == len(widths) - 1, rngs=rngs
            )
            for i, kind in enumerate(c.down_block_types)
        )
        self.mid_block = MidBlock(widths[-1], c, rngs=rngs)
        self.conv_norm_out = GroupNorm(widths[-1], c.norm_num_groups, c.norm_eps)
        self.conv_out = Conv(widths[-1], c.latent_channels, 3, rngs=rngs)

    def __call__(self, x, remat=False):
        run = runner(None, remat=remat)
        h = self.conv_in(x)
        for block in self.down_blocks:
            h, _, _ = block(h, None, run)
        return self.conv_out(self.conv_norm_out(self.mid_block(h, run), jax.nn.silu))


class Decoder(nnx.Module):
    """Latents to images."""

    def __init__(self, c: VQConfig, *, rngs):
        widths = c.block_out_channels[::-1]
        self.conv_in = Conv(c.latent_channels, widths[0], 3, rngs=rngs)
        self.mid_block = MidBlock(widths[0], c, rngs=rngs)
        self.up_blocks = nnx.List(
            UpDecoderBlock(
                widths[max(i - 1, 0)], widths[i], c, last=i == len(widths) - 1, rngs=rngs
            )
            for i in range(len(widths))
        )
        self.conv_norm_out = GroupNorm(widths[-1], c.norm_num_groups, c.norm_eps)
        self.conv_out = Conv(widths[-1], c.out_channels, 3, rngs=rngs)

    def __call__(self, z, remat=False):
        run = runner(None, remat=remat)
        h = self.mid_block(self.conv_in(z), run)
        for block in self.up_blocks:
            h = block(h, run)
        return self.conv_out(self.conv_norm_out(h, jax.nn.silu))


class UpDecoderBlock(nnx.Module):
    """Residual blocks, and twice the size after them."""

    def __init__(self, in_channels, channels, c: VQConfig, *, last, rngs):
        self.resnets = nnx.List(
            Resnet(channels if i else in_channels, channels, c, groups=c.norm_num_groups, rngs=rngs)
            for i in range(c.layers_per_block + 1)
        )
        self.upsamplers = nnx.List([] if last else [Upsample(channels, rngs=rngs)])

    def __call__(self, h, run):
        for layer in (*self.resnets, *self.upsamplers):
            h = run(layer, h)
        return h
