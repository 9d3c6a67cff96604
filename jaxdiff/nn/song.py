"""SongUNet: the network of EDM's checkpoints, in its DDPM++ and NCSN++ wirings."""

import dataclasses
from functools import partial
from math import sqrt

import jax
import jax.numpy as jnp
from flax import nnx

from jaxdiff.nn.abstract import Linear, normal
from jaxdiff.nn.attention import attend
from jaxdiff.nn.convolve import natively
from jaxdiff.nn.layers import (
    Conv,
    average_pool,
    fir_downsample,
    fir_downsample_inside,
    fir_upsample,
    positional_embedding,
    upsample_nearest,
)
from jaxdiff.nn.norm import GroupNorm
from jaxdiff.nn.remat import runner
from jaxdiff.util.pytree import frozen

_LEVELS, _BLOCKS = 12, 64  # at most: a file must not decide how long a network takes to build
_SCALE = sqrt(0.5)  # of a sum of two terms, to keep its variance
# by resample_filter: halve, double, halve after a convolution
_RESAMPLE = {
    (1, 1): (average_pool, upsample_nearest, average_pool),
    (1, 3, 3, 1): (fir_downsample, fir_upsample, fir_downsample_inside),
}


@frozen
class SongConfig:
    """The arguments of EDM's `SongUNet`, by its names.

    DDPM++ is `embedding_type="positional"`, `encoder_type="standard"`, `channel_mult_noise=1`,
    `resample_filter=(1, 1)`; NCSN++ is "fourier", "residual", 2, (1, 3, 3, 1).

    Raises:
        ValueError: names the field at fault, what was expected, and what came.

    Example:
        >>> SongConfig(img_resolution=64, model_channels=32, channel_mult=(1, 2)).downsampling
        2
        >>> SongConfig(img_resolution=64, encoder_type="deep")
        Traceback (most recent call last):
        ValueError: encoder_type: expected one of standard, skip, residual, got 'deep'
    """

    img_resolution: int
    in_channels: int = 3
    out_channels: int = 3
    label_dim: int = 0
    model_channels: int = 128
    channel_mult: tuple[int, ...] = (1, 2, 2, 2)
    channel_mult_emb: int = 4
    num_blocks: int = 4
    attn_resolutions: tuple[int, ...] = (16,)
    embedding_type: str = "positional"
    channel_mult_noise: int = 1
    encoder_type: str = "standard"
    decoder_type: str = "standard"
    resample_filter: tuple[int, ...] = (1, 1)

    def __post_init__(self):
        choices = {
            "embedding_type": ("positional", "fourier"),
            "encoder_type": ("standard", "skip", "residual"),
            "decoder_type": ("standard", "skip"),
            "resample_filter": tuple(_RESAMPLE),
        }
        for name, allowed in choices.items():
            if (value := getattr(self, name)) not in allowed:
                expected = ", ".join(map(str, allowed))
                raise ValueError(f"{name}: expected one of {expected}, got {value!r}")
        for name in {f.name for f in dataclasses.fields(self)} - set(choices):
            value, low = getattr(self, name), 0 if name == "label_dim" else 1
            numbers = value if isinstance(value, tuple) else (value,)
            if not all(type(number) is int and number >= low for number in numbers):
                raise ValueError(f"{name}: expected integers from {low} on, got {value!r}")
        if not 1 <= len(self.channel_mult) <= _LEVELS:
            raise ValueError(f"channel_mult: expected one to {_LEVELS} levels' multipliers")
        if self.num_blocks > _BLOCKS:
            raise ValueError(f"num_blocks: expected at most {_BLOCKS}, got {self.num_blocks}")
        for width in self.widths:
            if width % min(32, width // 4 or 1):
                raise ValueError(f"channel_mult: {width} channels do not divide into groups")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of every level."""
        return tuple(self.model_channels * multiplier for multiplier in self.channel_mult)

    @property
    def num_class_embeds(self) -> int | None:
        """Classes, by a UNet2D's name for their number."""
        return self.label_dim or None

    @property
    def class_embed_type(self) -> None:
        """A class is its number, as a UNet2D says it."""
        return None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images it was trained on."""
        return self.img_resolution, self.img_resolution

    @property
    def downsampling(self) -> int:
        """Height and width must be multiples of this."""
        return 2 ** (len(self.channel_mult) - 1)

    @property
    def attention_stride(self) -> int:
        """Pixels from one token to the next, where its attention is finest."""
        last = len(self.channel_mult) - 1
        levels = (i for i in range(last) if self.img_resolution >> i in self.attn_resolutions)
        return 2 ** min(levels, default=last)


class SongUNet(nnx.Module):
    """The network F(x, c) of EDM, of an image and the coordinate of its noise level.

    A pytree whose leaves are the weights. Attribute names equal those of EDM's module, so that
    `enc["32x32_block0"].conv0` is the same layer in both; `qkv` is [heads, channels, 3] along its
    outputs. Augmentation labels, which are 0 outside training, have no weights here.

    Args:
        config: a `SongConfig`.
        rngs: `flax.nnx.Rngs` for the initial weights.

    Source: Karras et al. 2022 (arXiv 2206.00364), appendix C.2, and Song et al. 2021 (arXiv
    2011.13456), appendix H.

    Example:
        >>> config = SongConfig(img_resolution=8, model_channels=8, channel_mult=(1, 2),
        ...                     num_blocks=1, attn_resolutions=(4,))
        >>> from jaxdiff.nn.abstract import abstract
        >>> unet = abstract(lambda rngs: SongUNet(config, rngs=rngs))
        >>> jax.eval_shape(SongUNet.__call__, unet, jnp.zeros((2, 8, 8, 3)), 0.5).shape
        (2, 8, 8, 3)
    """

    def __init__(self, config: SongConfig, *, rngs):
        self.config = c = config
        noise, emb = c.model_channels * c.channel_mult_noise, c.model_channels * c.channel_mult_emb
        if c.embedding_type == "fourier":
            self.map_noise = FourierEmbedding(noise, rngs=rngs)
        if c.label_dim:
            self.map_label = Linear(c.label_dim, noise, rngs=rngs)
        self.map_layer0 = Linear(noise, emb, rngs=rngs)
        self.map_layer1 = Linear(emb, emb, rngs=rngs)
        halve, double, _ = _RESAMPLE[c.resample_filter]
        block = partial(Block, emb=emb, rngs=rngs)

        enc, dec, kept = {}, {}, []
        channels, aux = c.in_channels, c.in_channels
        for level, width in enumerate(c.widths):
            at = self._at(level)
            if level == 0:
                enc[f"{at}_conv"] = Conv(channels, c.model_channels, 3, rngs=rngs)
                channels = c.model_channels
            else:
                enc[f"{at}_down"] = block(channels, channels, resize=halve)
                if c.encoder_type == "skip":
                    enc[f"{at}_aux_skip"] = Conv(aux, channels, 1, rngs=rngs)
                if c.encoder_type == "residual":
                    pad = ((1, 1),) * 2 if c.resample_filter == (1, 1) else ((2, 2),) * 2
                    enc[f"{at}_aux_residual"] = Conv(aux, channels, 3, padding=pad, rngs=rngs)
                    aux = channels
            kept.append(channels)
            for i in range(c.num_blocks):
                enc[f"{at}_block{i}"] = block(channels, width, heads=self._attends(level))
                channels = width
                kept.append(channels)
        for level, width in reversed(list(enumerate(c.widths))):
            at = self._at(level)
            if level == len(c.widths) - 1:
                dec[f"{at}_in0"] = block(channels, channels, heads=1)
                dec[f"{at}_in1"] = block(channels, channels)
            else:
                dec[f"{at}_up"] = block(channels, channels, resize=double)
            for i in range(c.num_blocks + 1):
                heads = self._attends(level) if i == c.num_blocks else 0
                dec[f"{at}_block{i}"] = block(channels + kept.pop(), width, heads=heads)
                channels = width
            if c.decoder_type == "skip" or level == 0:
                dec[f"{at}_aux_norm"] = _norm(channels)
                dec[f"{at}_aux_conv"] = Conv(channels, c.out_channels, 3, rngs=rngs)
        self.enc, self.dec = nnx.Dict(enc), nnx.Dict(dec)

    def _at(self, level: int) -> str:
        return "{0}x{0}".format(self.config.img_resolution >> level)

    def _attends(self, level: int) -> int:
        return int(self.config.img_resolution >> level in self.config.attn_resolutions)

    @property
    def dtype(self):
        """The dtype of the weights and of the computation."""
        return self.map_layer0.kernel.dtype

    @property
    def independent(self) -> bool:
        """Whether nothing of an image, not its rounding either, depends on the others of its batch."""
        return natively(self.map_layer0.kernel)

    def __call__(self, x, t, class_labels=None, *, remat: bool = False) -> jax.Array:
        """Evaluate the network.

        Args:
            x: images [n, H, W, in_channels] of unit variance (EDM's c_in·x), H and W multiples of
                `config.downsampling`.
            t: the coordinate of the noise level, [] or [n] (EDM's c_noise = ¼ ln σ).
            class_labels: [n] integers, or their weights [n, label_dim] (zeros: no class); needed
                exactly by a class-conditional network.
            remat: for a gradient, keep the inputs of its blocks and compute the rest again.

        Returns:
            [n, H, W, out_channels].

        Raises:
            ValueError: for a wrong shape, labels that are missing or not expected.
        """
        c = self.config
        _check_input(x, class_labels, c)
        x = x.astype(self.dtype)
        emb = self._embed(jnp.broadcast_to(jnp.asarray(t), x.shape[:1]), class_labels)
        run = runner(emb, remat=remat)

        halve, double, halve_after = _RESAMPLE[c.resample_filter]
        kept, aux, h = [], x, x
        for level in range(len(c.channel_mult)):
            at = self._at(level)
            if level == 0:
                h = self.enc[f"{at}_conv"](h)
            else:
                h = run(self.enc[f"{at}_down"], h)
                if c.encoder_type == "skip":
                    aux = halve(aux)
                    h = h + self.enc[f"{at}_aux_skip"](aux)
                if c.encoder_type == "residual":
                    aux = halve_after(self.enc[f"{at}_aux_residual"](aux))
                    h = aux = (h + aux) * _SCALE
            kept.append(h)
            for i in range(c.num_blocks):
                h = run(self.enc[f"{at}_block{i}"], h)
                kept.append(h)

        picture = None
        for level in reversed(range(len(c.channel_mult))):
            at = self._at(level)
            for name in ("in0", "in1") if level == len(c.channel_mult) - 1 else ("up",):
                h = run(self.dec[f"{at}_{name}"], h)
            for i in range(c.num_blocks + 1):
                h = run(self.dec[f"{at}_block{i}"], h, kept.pop())
            if picture is not None:
                picture = double(picture)
            if f"{at}_aux_conv" in self.dec:
                made = self.dec[f"{at}_aux_conv"](self.dec[f"{at}_aux_norm"](h, jax.nn.silu))
                picture = made if picture is None else picture + made
        return jnp.asarray(picture)

    def _embed(self, t, class_labels):
        c = self.config
        wide = t.astype(jnp.promote_types(self.dtype, jnp.float32))
        if c.embedding_type == "fourier":
            emb = self.map_noise(wide)
        else:
            emb = positional_embedding(wide, c.model_channels * c.channel_mult_noise, False, 1)
        emb = emb.astype(self.dtype)
        if class_labels is not None:
            if class_labels.ndim == 1:
                class_labels = jax.nn.one_hot(class_labels, c.label_dim, dtype=self.dtype)
            emb = emb + self.map_label(class_labels.astype(self.dtype) * sqrt(c.label_dim))
        return jax.nn.silu(self.map_layer1(jax.nn.silu(self.map_layer0(emb))))


class Block(nnx.Module):
    """EDM's UNetBlock: norm, SiLU, (resize), conv, noise level, norm, SiLU, conv, skip, attention."""

    def __init__(self, in_channels, channels, *, emb, heads=0, resize=None, rngs):
        self.norm0 = _norm(in_channels)
        self.conv0 = Conv(in_channels, channels, 3, rngs=rngs)
        self.affine = Linear(emb, channels, rngs=rngs)
        self.norm1 = _norm(channels)
        self.conv1 = Conv(channels, channels, 3, rngs=rngs)
        projects = in_channels != channels or resize is not None
        self.skip = Conv(in_channels, channels, 1, rngs=rngs) if projects else nnx.data(None)
        self.resize, self.heads = resize, heads
        if heads:
            self.norm2 = _norm(channels)
            self.qkv = Conv(channels, 3 * channels, 1, rngs=rngs)
            self.proj = Conv(channels, channels, 1, rngs=rngs)

    def __call__(self, x, emb):
        h = self.norm0(x, jax.nn.silu)
        if self.resize is not None:
            x, h = self.resize(x), self.resize(h)
        h = self.norm1(self.conv0(h) + self.affine(emb)[:, None, None], jax.nn.silu)
        x = x if self.skip is None else self.skip(x)
        x = (x + self.conv1(h)) * _SCALE
        return (x + self._attention(x)) * _SCALE if self.heads else x

    def _attention(self, x):
        n, height, width, c = x.shape
        qkv = self.qkv(self.norm2(x)).reshape(n, height * width, self.heads, -1, 3)
        h = attend(qkv[..., 0], qkv[..., 1], qkv[..., 2])
        return self.proj(h.reshape(n, height, width, c))


class FourierEmbedding(nnx.Module):
    """Random Fourier features of a number."""

    def __init__(self, channels: int, *, rngs):
        self.freqs = nnx.Param(16 * normal(rngs.params(), (channels // 2,)))

    def __call__(self, t):
        angle = t[:, None] * (2 * jnp.pi * self.freqs[...][None])
        return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)


def _norm(channels: int) -> GroupNorm:
    return GroupNorm(channels, min(32, channels // 4), 1e-6)


def _check_input(x, class_labels, c: SongConfig) -> None:
    if x.ndim != 4 or x.shape[-1] != c.in_channels:
        raise ValueError(f"x: expected [n, H, W, {c.in_channels}], got {list(x.shape)}")
    if x.shape[1] % c.downsampling or x.shape[2] % c.downsampling:
        raise ValueError(
            f"x: height and width must be multiples of {c.downsampling} for this network, "
            f"got {x.shape[1]}×{x.shape[2]}: crop or resize the image"
        )
    if (class_labels is None) == bool(c.label_dim):
        needs = "is class-conditional and needs them" if c.label_dim else "has no classes"
        raise ValueError(f"class_labels: this network {needs}")
