"""UNet2D: diffusers' UNet2DModel in flax.nnx."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxdiff.nn.abstract import Embed, abstract
from jaxdiff.nn.blocks import DownBlock, MidBlock, SkipDownBlock, SkipUpBlock, UpBlock
from jaxdiff.nn.config import UNet2DConfig
from jaxdiff.nn.convolve import natively
from jaxdiff.nn.layers import Conv, FourierProjection, TimestepEmbedding, positional_embedding
from jaxdiff.nn.norm import GroupNorm
from jaxdiff.nn.remat import runner


class UNet2D(nnx.Module):
    """The noise (or x₀, or v) prediction network ε(x_t, t) of diffusers' UNet2DModel.

    A pytree whose leaves are the weights: pass it to compiled functions as an argument. Attribute
    names equal torch's module names, so that `down_blocks[0].resnets[1].norm1` is the same layer
    in both. The weights' dtype (float32, bfloat16, float64) is the dtype of the computation;
    normalisation and softmax run in float32 at least.

    Args:
        config: a `UNet2DConfig` or the dictionary of a `config.json`.
        rngs: `flax.nnx.Rngs` for the initial weights.

    Source: Ho et al. 2020 (arXiv 2006.11239) as in diffusers' `UNet2DModel`.

    Example:
        >>> config = UNet2DConfig(sample_size=8, block_out_channels=(8,), norm_num_groups=4,
        ...                       down_block_types=("AttnDownBlock2D",), layers_per_block=1,
        ...                       up_block_types=("AttnUpBlock2D",))
        >>> unet = UNet2D(config, rngs=nnx.Rngs(0))
        >>> nnx.jit(UNet2D.__call__)(unet, jnp.zeros((2, 8, 8, 3)), 10).shape
        (2, 8, 8, 3)
    """

    def __init__(self, config: UNet2DConfig | Mapping, *, rngs: nnx.Rngs):
        c = config if isinstance(config, UNet2DConfig) else UNet2DConfig.from_dict(config)
        self.config = c
        widths = c.block_out_channels
        self.conv_in = Conv(c.in_channels, widths[0], 3, rngs=rngs)

        time_channels = widths[0]
        if c.time_embedding_type == "fourier":
            self.time_proj = FourierProjection(widths[0], rngs=rngs)
            time_channels *= 2
        elif c.time_embedding_type == "learned":
            assert c.num_train_timesteps is not None  # the config sees to it
            self.time_proj = Embed(c.num_train_timesteps, widths[0], rngs=rngs)
        self.time_embedding = TimestepEmbedding(time_channels, c.time_embed_dim, rngs=rngs)
        if c.class_embed_type == "timestep":
            self.class_embedding = TimestepEmbedding(time_channels, c.time_embed_dim, rngs=rngs)
        elif c.class_embed_type is None and c.num_class_embeds is not None:
            self.class_embedding = Embed(c.num_class_embeds, c.time_embed_dim, rngs=rngs)

        self.down_blocks = nnx.List()
        for i, kind in enumerate(c.down_block_types):
            block = SkipDownBlock if "Skip" in kind else DownBlock
            last = i == len(widths) - 1
            self.down_blocks.append(
                block(kind, widths[max(i - 1, 0)], widths[i], c, last=last, rngs=rngs)
            )
        self.mid_block = (
            nnx.data(None) if c.mid_block_type is None else MidBlock(widths[-1], c, rngs=rngs)
        )
        up = widths[::-1]
        self.up_blocks = nnx.List()
        for i, kind in enumerate(c.up_block_types):
            block = SkipUpBlock if "Skip" in kind else UpBlock
            below, beside = up[max(i - 1, 0)], up[min(i + 1, len(up) - 1)]
            last = i == len(up) - 1
            self.up_blocks.append(block(kind, below, beside, up[i], c, last=last, rngs=rngs))

        groups = c.norm_num_groups or min(widths[0] // 4, 32)
        self.conv_norm_out = GroupNorm(widths[0], groups, c.norm_eps)
        self.conv_out = Conv(widths[0], c.out_channels, 3, rngs=rngs)

    @property
    def dtype(self):
        """The dtype of the weights and of the computation."""
        return self.conv_in.kernel.dtype

    @property
    def independent(self) -> bool:
        """Whether nothing of an image, not its rounding either, depends on the others of its batch."""
        return natively(self.conv_in.kernel)

    def __call__(
        self, x, t, class_labels=None, *, rngs: nnx.Rngs | None = None, remat: bool = False
    ) -> jax.Array:
        """Evaluate the network.

        Args:
            x: images [n, H, W, in_channels] in [-1, 1] plus noise, H and W multiples of
                `config.downsampling`.
            t: timesteps, [] or [n].
            class_labels: [n] integers; or weights of the classes [n, num_class_embeds], whose
                embeddings are summed (zeros: no class); or [n, time_embed_dim] where
                `class_embed_type` is "identity"; needed exactly by a class-conditional network.
            rngs: the dropout stream, for training only (`unet.train()`).
            remat: for a gradient, keep the inputs of its layers and no more, and compute the
                rest again: half the temporary memory, a third more time, same values.

        Returns:
            [n, H, W, out_channels].

        Raises:
            ValueError: for a wrong shape, labels that are missing or not expected, dropout with
                `remat`.
        """
        if remat and rngs is not None:
            raise ValueError("remat: a layer's dropout can't be drawn twice: leave rngs out")
        _check_input(x, class_labels, self.config)
        if self.config.center_input_sample:
            x = 2 * x - 1.0
        x = x.astype(self.dtype)
        t = jnp.broadcast_to(jnp.asarray(t), x.shape[:1])
        temb = self._embed(t, class_labels)
        run = runner(temb, rngs, remat=remat)
        skip, h = x, self.conv_in(x)
        kept = [h]
        for block in self.down_blocks:
            h, skip, outputs = block(h, skip, run)
            kept += outputs
        if self.mid_block is not None:
            h = self.mid_block(h, run)
        skip = None
        for block in self.up_blocks:
            count = len(block.resnets)
            kept, beside = kept[:-count], kept[-count:]
            h, skip = block(h, skip, beside, run)

        h = self.conv_out(self.conv_norm_out(h, jax.nn.silu))
        if skip is not None:
            h = h + skip
        if self.config.time_embedding_type == "fourier":
            h = h / t[:, None, None, None].astype(h.dtype)
        return h

    def _project(self, t):
        """Features of a number, in float32 at least where they are sinusoids."""
        c = self.config
        if c.time_embedding_type == "learned":
            return self.time_proj(t.astype(jnp.int32))
        t = t.astype(jnp.promote_types(self.dtype, jnp.float32))
        if c.time_embedding_type == "fourier":
            return self.time_proj(t)
        return positional_embedding(t, c.block_out_channels[0], c.flip_sin_to_cos, c.freq_shift)

    def _embed(self, t, class_labels):
        temb = self.time_embedding(self._project(t).astype(self.dtype))
        if class_labels is None:
            return temb
        if self.config.class_embed_type == "identity":
            return temb + class_labels.astype(self.dtype)
        if self.config.class_embed_type == "timestep":
            class_labels = self._project(class_labels).astype(self.dtype)
        elif class_labels.ndim == 2:
            embed: Any = self.class_embedding
            embeddings = embed.embedding[...]
            highest = jax.lax.Precision.HIGHEST
            return temb + jnp.matmul(class_labels.astype(self.dtype), embeddings, precision=highest)
        return temb + self.class_embedding(class_labels)


def _check_input(x, class_labels, c: UNet2DConfig):
    if x.ndim != 4 or x.shape[-1] != c.in_channels:
        raise ValueError(f"x: expected [n, H, W, {c.in_channels}], got {list(x.shape)}")
    if x.shape[1] % c.downsampling or x.shape[2] % c.downsampling:
        raise ValueError(
            f"x: height and width must be multiples of {c.downsampling} for this network, "
            f"got {x.shape[1]}×{x.shape[2]}: crop or resize the image"
        )
    conditional = c.class_embed_type is not None or c.num_class_embeds is not None
    if conditional and class_labels is None:
        raise ValueError("class_labels: this network is class-conditional and needs them")
    if not conditional and class_labels is not None:
        raise ValueError("class_labels: this network is not class-conditional, leave them out")


def abstract_unet(config: UNet2DConfig) -> UNet2D:
    """A UNet2D whose leaves are shapes: nothing is drawn, nothing is allocated."""
    return abstract(lambda rngs: UNet2D(config, rngs=rngs))
