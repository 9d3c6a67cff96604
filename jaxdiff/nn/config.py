"""The configuration of a UNet2D: diffusers' fields, checked."""

import dataclasses
import math
import reprlib
import warnings
from collections.abc import Mapping
from typing import Any

from jaxdiff.util import limits
from jaxdiff.util.pytree import frozen

ACTIVATIONS = ("swish", "silu", "mish", "gelu", "relu")
DOWN_BLOCKS = (
    "DownBlock2D",
    "AttnDownBlock2D",
    "ResnetDownsampleBlock2D",
    "SkipDownBlock2D",
    "AttnSkipDownBlock2D",
)
UP_BLOCKS = (
    "UpBlock2D",
    "AttnUpBlock2D",
    "ResnetUpsampleBlock2D",
    "SkipUpBlock2D",
    "AttnSkipUpBlock2D",
)


@frozen
class UNet2DConfig:
    """The fields of diffusers' `UNet2DModel`, with its names and its defaults.

    `attention_head_dim=None` means one head of all channels, `norm_num_groups=None` is possible
    only where every block computes its own groups (the Skip blocks).

    Raises:
        ValueError: names the field at fault, what was expected, and what came.

    Example:
        >>> UNet2DConfig(block_out_channels=(32, 64), down_block_types=("DownBlock2D",) * 2,
        ...              up_block_types=("UpBlock2D",) * 2).time_embed_dim
        128
        >>> UNet2DConfig(act_fn="tanh")
        Traceback (most recent call last):
        ValueError: act_fn: expected one of swish, silu, mish, gelu, relu, got 'tanh'
    """

    sample_size: int | tuple[int, int] | None = None
    in_channels: int = 3
    out_channels: int = 3
    center_input_sample: bool = False
    time_embedding_type: str = "positional"
    time_embedding_dim: int | None = None
    freq_shift: int = 0
    flip_sin_to_cos: bool = True
    down_block_types: tuple[str, ...] = (
        "DownBlock2D",
        "AttnDownBlock2D",
        "AttnDownBlock2D",
        "AttnDownBlock2D",
    )
    mid_block_type: str | None = "UNetMidBlock2D"
    up_block_types: tuple[str, ...] = (
        "AttnUpBlock2D",
        "AttnUpBlock2D",
        "AttnUpBlock2D",
        "UpBlock2D",
    )
    block_out_channels: tuple[int, ...] = (224, 448, 672, 896)
    layers_per_block: int = 2
    mid_block_scale_factor: float = 1
    downsample_padding: int = 1
    downsample_type: str = "conv"
    upsample_type: str = "conv"
    dropout: float = 0.0
    act_fn: str = "silu"
    attention_head_dim: int | None = 8
    norm_num_groups: int | None = 32
    attn_norm_num_groups: int | None = None
    norm_eps: float = 1e-5
    resnet_time_scale_shift: str = "default"
    add_attention: bool = True
    class_embed_type: str | None = None
    num_class_embeds: int | None = None
    num_train_timesteps: int | None = None

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "UNet2DConfig":
        """Read a `config.json`: fields starting with `_` are diffusers' own and are ignored.

        Fields that UNet2DModel does not have, such as those that diffusers' training script adds to
        its averaged weights, are ignored with a warning, as diffusers does.

        Raises:
            ValueError: for a class that is not UNet2DModel, and for a field at fault.
        """
        name = config.get("_class_name", "UNet2DModel")
        if name != "UNet2DModel":
            _fail("_class_name", "'UNet2DModel'", name)
        known = {f.name for f in dataclasses.fields(cls)}
        fields = {k: v for k, v in config.items() if not k.startswith("_")}
        if unknown := sorted(set(fields) - known):
            warnings.warn(
                f"config: ignoring {reprlib.repr(unknown)[1:-1]}, which UNet2DModel does not have",
                stacklevel=2,
            )
        return cls(**{k: v for k, v in fields.items() if k in known})

    def to_dict(self) -> dict[str, Any]:
        """The dictionary that `config.json` holds."""
        return {"_class_name": "UNet2DModel"} | dataclasses.asdict(self)

    @property
    def time_embed_dim(self) -> int:
        """Width of the time embedding."""
        return self.time_embedding_dim or self.block_out_channels[0] * 4

    @property
    def size(self) -> tuple[int, int] | None:
        """`sample_size` as (height, width)."""
        s = self.sample_size
        return (s, s) if isinstance(s, int) else s

    @property
    def downsampling(self) -> int:
        """Height and width must be multiples of this."""
        return 2 ** (len(self.block_out_channels) - 1)

    @property
    def attention_stride(self) -> int | None:
        """Pixels from one token to the next, where its attention is finest; None without any."""
        levels = [i for i, name in enumerate(self.down_block_types) if "Attn" in name]
        if self.mid_block_type and self.add_attention:
            levels.append(len(self.block_out_channels) - 1)
        return 2 ** min(levels) if levels else None

    def head_dim(self, channels: int) -> int:
        """Channels of one attention head in a block of `channels`."""
        return channels if self.attention_head_dim is None else self.attention_head_dim

    def __post_init__(self):
        # "UNetRes" is the prefix of diffusers' first releases
        today = {}
        for name in ("down_block_types", "up_block_types"):
            value = getattr(self, name)
            if not isinstance(value, tuple) or not all(isinstance(b, str) for b in value):
                _fail(name, "a list of block names", value)
            if any(b.startswith("UNetRes") for b in value):
                today[name] = tuple(b.removeprefix("UNetRes") for b in value)
        if today:
            dataclasses.replace(self, **today)  # which checks itself
            return today
        _check_types(self)
        _check_limits(self)
        _check_choices(self)
        _check_blocks(self)
        _check_channels(self)
        return None


def _fail(field: str, expected: str, value: Any):
    raise ValueError(f"{field}: expected {expected}, got {reprlib.repr(value)}")


def _is_int(value: Any, low: float = -math.inf) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _is_number(value: Any) -> bool:
    return _is_int(value) or (isinstance(value, float) and math.isfinite(value))


def _check_types(c: UNet2DConfig):
    for name in ("in_channels", "out_channels", "layers_per_block"):
        if not _is_int(v := getattr(c, name), 1):
            _fail(name, "a positive integer", v)
    for name in (
        "time_embedding_dim",
        "attention_head_dim",
        "norm_num_groups",
        "attn_norm_num_groups",
        "num_class_embeds",
        "num_train_timesteps",
    ):
        if (v := getattr(c, name)) is not None and not _is_int(v, 1):
            _fail(name, "a positive integer or null", v)
    for name in ("center_input_sample", "flip_sin_to_cos", "add_attention"):
        if not isinstance(v := getattr(c, name), bool):
            _fail(name, "true or false", v)
    size = c.sample_size
    if size is not None:
        pair = size if isinstance(size, tuple) else (size, size)
        if len(pair) != 2 or not all(_is_int(s, 1) for s in pair):
            _fail("sample_size", "a positive integer, a pair of them, or null", size)
    widths = c.block_out_channels
    if not isinstance(widths, tuple) or not all(_is_int(width, 1) for width in widths):
        _fail("block_out_channels", "a list of positive integers", widths)
    for name in ("norm_eps", "mid_block_scale_factor"):
        if not _is_number(v := getattr(c, name)) or v <= 0:
            _fail(name, "a positive number", v)
    if not _is_number(c.dropout) or not 0 <= c.dropout < 1:
        _fail("dropout", "a number in [0, 1)", c.dropout)
    if not _is_number(c.freq_shift):
        _fail("freq_shift", "a number", c.freq_shift)
    if c.time_embedding_type == "positional" and c.freq_shift in [w // 2 for w in widths[:1]]:
        _fail("freq_shift", "a number other than half of block_out_channels[0]", c.freq_shift)


def _check_limits(c: UNet2DConfig):
    """Before anything is built: the shapes of a network of a million layers take hours."""
    limits.check("layers_per_block", c.layers_per_block, "LAYERS")
    limits.check("block_out_channels: blocks", len(c.block_out_channels), "BLOCKS")
    for size in c.size or ():
        limits.check("sample_size", size, "SAMPLE_SIZE")
    for name in ("in_channels", "out_channels", "time_embedding_dim", "num_class_embeds"):
        limits.check(name, getattr(c, name) or 0, "CHANNELS")
    for width in c.block_out_channels:
        limits.check("block_out_channels", width, "CHANNELS")
    limits.check("num_train_timesteps", c.num_train_timesteps or 0, "TIMESTEPS")


def _check_choices(c: UNet2DConfig):
    choices = {
        "time_embedding_type": ("positional", "fourier", "learned"),
        "mid_block_type": ("UNetMidBlock2D", None),
        "downsample_padding": (0, 1),
        "downsample_type": ("conv", "resnet"),
        "upsample_type": ("conv", "resnet"),
        "act_fn": ACTIVATIONS,
        "resnet_time_scale_shift": ("default", "scale_shift"),
        "class_embed_type": (None, "timestep", "identity"),
    }
    for name, allowed in choices.items():
        v = getattr(c, name)
        if not any(type(v) is type(a) and v == a for a in allowed):  # True is no 1 here
            _fail(name, "one of " + ", ".join("null" if a is None else str(a) for a in allowed), v)
    if c.time_embedding_type == "learned" and c.num_train_timesteps is None:
        _fail("num_train_timesteps", "a number, as time_embedding_type is 'learned'", None)


def _check_blocks(c: UNet2DConfig):
    levels = len(c.block_out_channels)
    for name, allowed in (("down_block_types", DOWN_BLOCKS), ("up_block_types", UP_BLOCKS)):
        blocks = getattr(c, name)
        if len(blocks) != levels or not levels:
            _fail(name, f"{levels} blocks, as many as block_out_channels", blocks)
        for i, block in enumerate(blocks):
            if block not in allowed:
                _fail(f"{name}[{i}]", "one of " + ", ".join(allowed), block)
    # A Skip block carries the picture beside the features: it must have been there at each halving.
    skip = ["Skip" in b for b in c.down_block_types[:-1]]
    if skip != sorted(skip, reverse=True):
        _fail("down_block_types", "no Skip block after one of another kind", c.down_block_types)
    skip_up = ["Skip" in b for b in c.up_block_types]
    if skip_up != sorted(skip_up):
        _fail("up_block_types", "only Skip blocks after a Skip block", c.up_block_types)
    if any(skip) and c.in_channels != 3:
        _fail("in_channels", "3, which Skip blocks fix", c.in_channels)
    if any(skip_up[:-1]) and c.out_channels != 3:
        _fail("out_channels", "3, which Skip blocks fix", c.out_channels)


def _check_channels(c: UNet2DConfig):
    groups, blocks = c.norm_num_groups, c.down_block_types + c.up_block_types
    if groups is None and not all("Skip" in b for b in blocks):
        _fail("norm_num_groups", "a positive integer unless all blocks are Skip blocks", None)
    for i, ch in enumerate(c.block_out_channels):
        if groups is not None and ch % groups:
            _fail(f"block_out_channels[{i}]", f"a multiple of norm_num_groups={groups}", ch)
        if c.head_dim(ch) > ch and (
            "Attn" in c.down_block_types[i]
            or "Attn" in c.up_block_types[-1 - i]
            or (i == len(c.block_out_channels) - 1 and c.mid_block_type and c.add_attention)
        ):
            _fail("attention_head_dim", f"at most the {ch} channels of its block", c.head_dim(ch))
        if (
            any("AttnSkip" in b for b in (c.down_block_types[i], c.up_block_types[-1 - i]))
            and ch % 32
        ):
            _fail(f"block_out_channels[{i}]", "a multiple of 32, AttnSkip's norm groups", ch)
    attn_groups = c.attn_norm_num_groups
    if attn_groups is not None and c.block_out_channels[-1] % attn_groups:
        _fail("attn_norm_num_groups", f"a divisor of {c.block_out_channels[-1]}", attn_groups)
