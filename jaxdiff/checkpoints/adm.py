"""Read guided-diffusion's checkpoints (ADM), such as ffhq_10m.pt: UNet2DModels under other names.

Source: Dhariwal and Nichol 2021 (arXiv 2105.05233).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxdiff.checkpoints.names import listed, unwrapped
from jaxdiff.checkpoints.tensors import Tensor, Tensors
from jaxdiff.checkpoints.torch_zip import read_torch_zip
from jaxdiff.nn.config import UNet2DConfig

_SIZES = {  # guided-diffusion's own multipliers by image size
    (1, 1, 2, 2, 4, 4): 256,
    (1, 1, 2, 3, 4): 128,
    (1, 2, 3, 4): 64,
}
_FIELDS = {  # of guided-diffusion's scripts
    *"image_size num_channels num_res_blocks channel_mult learn_sigma class_cond".split(),
    *"attention_resolutions num_heads num_head_channels num_heads_upsample dropout".split(),
    *"use_scale_shift_norm resblock_updown use_new_attention_order use_checkpoint use_fp16".split(),
    *"diffusion_steps noise_schedule timestep_respacing use_kl model_path".split(),
    *"predict_xstart rescale_timesteps rescale_learned_sigmas".split(),
}
_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb": "class_embedding",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}


def is_adm(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of guided-diffusion's network."""
    return {"time_embed.0.weight", "input_blocks.0.0.weight", "out.2.weight"} <= tensors.keys()


def read_adm(
    path: str | Path, config: Mapping[str, Any] | None = None
) -> tuple[UNet2DConfig, Tensors]:
    """The configuration and the tensors, by diffusers' names, of a `.pt` of guided-diffusion.

    The container may be torch's archive or its older stream; nothing but tensors is admitted.
    `unet_from_tensors(config, tensors, dtype)` makes the network of both.

    Args:
        path: a file such as `ffhq_10m.pt` or `256x256_diffusion_uncond.pt`.
        config: fields of guided-diffusion's scripts, by its names, where the tensors cannot say:
            `num_head_channels` (64 without it) or `num_heads`, `use_new_attention_order` (False),
            `image_size`. The other fields are compared with what the tensors say.

    Raises:
        ValueError: for a file with anything but tensors, of another network, or whose tensors a
            field of `config` contradicts.
    """
    path = Path(path)
    tensors = unwrapped(read_torch_zip(path))
    try:
        return from_adm(tensors, config or {})
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from e


def from_adm(tensors: Tensors, config: Mapping[str, Any]) -> tuple[UNet2DConfig, Tensors]:
    """The configuration and the tensors, by diffusers' names, of guided-diffusion's tensors.

    Raises:
        ValueError: names the field or the tensors at fault.
    """
    if unknown := sorted(map(str, config.keys() - _FIELDS)):
        raise ValueError(
            f"{listed(unknown)}: no field of guided-diffusion, whose tensors these are"
        )
    unet = adm_config(tensors, config)
    order = config.get("use_new_attention_order") or False
    if not isinstance(order, bool):
        raise ValueError(f"use_new_attention_order: expected true or false, got {order!r}")
    return unet, to_diffusers(unet, tensors, order)


def adm_config(tensors: Mapping[str, Tensor], config: Mapping[str, Any] = {}) -> UNet2DConfig:
    """The UNet2DConfig of guided-diffusion's tensors; `config` as in `read_adm`.

    Raises:
        ValueError: names the field or the tensors at fault.
    """
    if not is_adm(tensors):
        raise ValueError("no checkpoint of guided-diffusion: it has no time_embed and input_blocks")

    def shape(name: str) -> tuple[int, ...]:
        if (found := tensors.get(name)) is None:
            raise ValueError(f"not guided-diffusion's network: {name} is missing")
        if len(found.shape) < 2 or 0 in found.shape:
            raise ValueError(f"not guided-diffusion's network: {name} is {list(found.shape)}")
        return found.shape

    config = {name: value for name, value in config.items() if value is not None}
    for name in ("image_size", "num_head_channels", "num_heads"):
        value = config.get(name, -1)
        if type(value) is not int or (value < 1 and value != -1):
            raise ValueError(f"{name}: expected a positive integer, got {value!r}")
    layers, levels = _layout(tensors)
    each = layers + 1
    first = [f"input_blocks.{1 + level * each}" for level in range(levels)]
    widths = tuple(shape(f"{block}.0.out_layers.3.weight")[0] for block in first)
    attends = [f"{block}.1.qkv.weight" in tensors for block in first]
    classes = shape("label_emb.weight")[0] if "label_emb.weight" in tensors else None
    base, time = shape("time_embed.0.weight")[1], shape("time_embed.0.weight")[0]
    if shape("input_blocks.0.0.weight")[0] != widths[0] or base != widths[0]:
        raise ValueError("channel_mult: a first multiplier other than 1 is no UNet2DModel's")
    in_channels, out_channels = shape("input_blocks.0.0.weight")[1], shape("out.2.weight")[0]
    shifts = shape(f"{first[0]}.0.emb_layers.1.weight")[0] == 2 * widths[0]
    by_resnet = levels > 1 and f"input_blocks.{each}.0.in_layers.2.weight" in tensors
    multipliers = tuple(width // base for width in widths)
    size = config.get("image_size", _SIZES.get(multipliers))
    _compare(
        config,
        num_channels=base,
        num_res_blocks=layers,
        channel_mult=multipliers,
        attention_resolutions={size >> i for i, a in enumerate(attends) if a} if size else None,
        learn_sigma=out_channels == 2 * in_channels,
        class_cond=classes is not None,
        use_scale_shift_norm=shifts,
        resblock_updown=by_resnet if levels > 1 else None,
    )
    down, up, resample = "DownBlock2D", "UpBlock2D", "conv"
    if by_resnet:
        down, up, resample = "ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D", "resnet"
    return UNet2DConfig(
        sample_size=size,
        in_channels=in_channels,
        out_channels=out_channels,
        time_embedding_dim=time,
        down_block_types=tuple("AttnDownBlock2D" if a else down for a in attends),
        up_block_types=tuple("AttnUpBlock2D" if a else up for a in attends[::-1]),
        block_out_channels=widths,
        layers_per_block=layers,
        downsample_type=resample,
        upsample_type=resample,
        attention_head_dim=_head_dim(
            config, {w for w, a in zip(widths, attends) if a} | {widths[-1]}
        ),
        attn_norm_num_groups=32,
        resnet_time_scale_shift="scale_shift" if shifts else "default",
        num_class_embeds=classes,
    )


def scheduler_config(unet: UNet2DConfig, config: Mapping[str, Any] = {}) -> dict[str, Any]:
    """The scheduler that guided-diffusion trains with, in diffusers' fields.

    β from 0.0001 to 0.02 at 1000 levels, or a cosine; the variance is learned where the network
    has two outputs a channel (`learn_sigma`). `config` may have `diffusion_steps`,
    `noise_schedule` and `predict_xstart`.
    """
    steps = config.get("diffusion_steps", 1000)
    if type(steps) is not int or steps < 1:
        raise ValueError(f"diffusion_steps: expected a positive integer, got {steps!r}")
    if config.get("rescale_timesteps") and steps != 1000:
        raise ValueError("rescale_timesteps: expected false, or 1000 diffusion_steps")
    names = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
    schedule = config.get("noise_schedule", "linear")
    if schedule not in names:
        raise ValueError(f"noise_schedule: expected one of {', '.join(names)}, got {schedule!r}")
    learned = unet.out_channels == 2 * unet.in_channels
    return {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": steps,
        "beta_schedule": names[schedule],
        "beta_start": 1e-4 * 1000 / steps,
        "beta_end": 0.02 * 1000 / steps,
        "variance_type": "learned_range" if learned else "fixed_large",
        "prediction_type": "sample" if config.get("predict_xstart") else "epsilon",
        "clip_sample": True,
    }


def to_diffusers(unet: UNet2DConfig, tensors: Tensors, new_order: bool = False) -> Tensors:
    """The tensors by diffusers' names; one that has none keeps its own.

    `qkv` is [heads, 3, head_dim, C], or [3, heads, head_dim, C] where `new_order`.
    """
    left, renamed = dict(tensors), {}
    for theirs, ours in _modules(unet):
        for leaf in ("weight", "bias"):
            tensor = left.pop(f"{theirs}.{leaf}", None)
            if tensor is None:
                continue
            if theirs.endswith("qkv"):
                for i, letter in enumerate("qkv"):
                    part = _projection(tensor, i, unet, new_order)
                    renamed[ours.replace("qkv", f"to_{letter}") + f".{leaf}"] = part
            elif theirs.endswith("proj_out") and len(tensor.shape) == 3:
                renamed[f"{ours}.{leaf}"] = _reshaped(tensor, tensor.shape[:2])
            else:
                renamed[f"{ours}.{leaf}"] = tensor
    return renamed | left


def to_adm(unet: UNet2DConfig, tensors: Tensors, new_order: bool = False) -> Tensors:
    """The tensors of a UNet2DModel by guided-diffusion's names: the inverse of `to_diffusers`."""
    left, renamed = dict(tensors), {}
    for theirs, ours in _modules(unet):
        for leaf in ("weight", "bias"):
            names = [f"{ours}.{leaf}"]
            if theirs.endswith("qkv"):
                names = [ours.replace("qkv", f"to_{letter}") + f".{leaf}" for letter in "qkv"]
            if not set(names) <= left.keys():
                continue
            found = [left.pop(name) for name in names]
            tensor = _joined_qkv(found, unet, new_order) if len(found) == 3 else found[0]
            if leaf == "weight" and theirs.endswith(("qkv", "proj_out")):
                tensor = _reshaped(tensor, (*tensor.shape, 1))
            renamed[f"{theirs}.{leaf}"] = tensor
    return renamed | left


def _modules(c: UNet2DConfig) -> Iterator[tuple[str, str]]:
    """guided-diffusion's name and diffusers' of every module that has weights."""

    def resnet(theirs, ours):
        return ((f"{theirs}.{a}", f"{ours}.{b}") for a, b in _RESNET.items())

    def attention(theirs, ours):
        names = {"norm": "group_norm", "qkv": "qkv", "proj_out": "to_out.0"}
        return ((f"{theirs}.{a}", f"{ours}.{b}") for a, b in names.items())

    yield from _ENDS.items()
    levels, layers = len(c.block_out_channels), c.layers_per_block
    for level, kind in enumerate(c.down_block_types):
        for i in range(layers):
            block, ours = f"input_blocks.{1 + level * (layers + 1) + i}", f"down_blocks.{level}"
            yield from resnet(f"{block}.0", f"{ours}.resnets.{i}")
            if "Attn" in kind:
                yield from attention(f"{block}.1", f"{ours}.attentions.{i}")
        block, ours = f"input_blocks.{(level + 1) * (layers + 1)}.0", f"down_blocks.{level}"
        if level < levels - 1:
            yield from resnet(block, f"{ours}.downsamplers.0")
            yield f"{block}.op", f"{ours}.downsamplers.0.conv"
    for i, j in ((0, 0), (2, 1)):
        yield from resnet(f"middle_block.{i}", f"mid_block.resnets.{j}")
    yield from attention("middle_block.1", "mid_block.attentions.0")
    for level, kind in enumerate(c.up_block_types):
        ours, after = f"up_blocks.{level}", 2 if "Attn" in kind else 1
        for i in range(layers + 1):
            block = f"output_blocks.{level * (layers + 1) + i}"
            yield from resnet(f"{block}.0", f"{ours}.resnets.{i}")
            if "Attn" in kind:
                yield from attention(f"{block}.1", f"{ours}.attentions.{i}")
            if level < levels - 1 and i == layers:
                yield from resnet(f"{block}.{after}", f"{ours}.upsamplers.0")
                yield f"{block}.{after}.conv", f"{ours}.upsamplers.0.conv"


def _layout(tensors: Mapping[str, Tensor]) -> tuple[int, int]:
    """Residual blocks of a level, and levels: a level of the way up ends where it is doubled."""
    blocks = {
        int(n.split(".")[1])
        for n in tensors
        if n.startswith("output_blocks.") and n.split(".")[1].isdecimal()
    }
    ends = [
        i
        for i in sorted(blocks)
        if any(
            f"output_blocks.{i}.{j}.{name}.weight" in tensors
            for j in (1, 2)
            for name in ("in_layers.2", "conv")
        )
    ]
    each = ends[0] + 1 if ends else len(blocks)
    if each < 2 or len(blocks) % each or blocks != set(range(len(blocks))):
        raise ValueError("not guided-diffusion's network: its output_blocks are not whole")
    return each - 1, len(blocks) // each


def _head_dim(config: Mapping[str, Any], widths: set[int]) -> int:
    """Channels of a head, where `config` says them or their number: 64 else."""
    dim, heads = config.get("num_head_channels", -1), config.get("num_heads", -1)
    field, dims = "num_head_channels", {64 if dim == -1 else dim}
    if dim == -1 and heads != -1:
        field, dims = "num_heads", {width // heads if heads > 0 else 0 for width in widths}
    for dim in dims:
        for width in sorted(widths):
            if dim < 1 or width % dim:
                raise ValueError(
                    f"{field}: heads of {dim} channels do not divide an attention's {width}; a "
                    "UNet2DModel's heads are all of one size"
                )
    return dims.pop()


def _compare(config: Mapping[str, Any], **found: Any) -> None:
    """Raise where a field of `config` is not what the tensors say."""
    for name, value in found.items():
        given = config.get(name)
        if given in (None, "") or value is None:
            continue
        if isinstance(value, set | tuple):
            numbers = given.split(",") if isinstance(given, str) else np.atleast_1d(given)
            given = type(value)(int(number) for number in numbers)
        if given != value:
            raise ValueError(f"{name}: the config says {given}, the tensors {value}")


def _projection(tensor: Tensor, i: int, unet: UNet2DConfig, new_order: bool) -> Tensor:
    """The query's, key's or value's part of a `qkv`."""
    rows, rest = (*tensor.shape, 0)[0], tensor.shape[1:2]
    channels = rows // 3
    if not rows or rows % 3 or channels % unet.head_dim(channels):
        raise ValueError(f"qkv: {rows} rows are not three times whole heads")
    split, axis = _split(channels, unet, new_order)

    def read():
        return tensor.read().reshape(*split, *rest).take(i, axis).reshape(channels, *rest)

    return tensor._replace(shape=(channels, *rest), read=read)


def _joined_qkv(parts: list[Tensor], unet: UNet2DConfig, new_order: bool) -> Tensor:
    channels, *rest = parts[0].shape
    split, axis = _split(channels, unet, new_order)
    one = [n for a, n in enumerate(split) if a != axis]

    def read():
        arrays = [part.read().reshape(*one, *rest) for part in parts]
        return np.stack(arrays, axis).reshape(3 * channels, *rest)

    return parts[0]._replace(shape=(3 * channels, *rest), read=read)


def _split(channels: int, unet: UNet2DConfig, new_order: bool) -> tuple[tuple[int, int, int], int]:
    """How the rows of a `qkv` are ordered, and the axis of query, key and value."""
    dim = unet.head_dim(channels)
    heads = channels // dim
    return ((3, heads, dim), 0) if new_order else ((heads, 3, dim), 1)


def _reshaped(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    return tensor._replace(shape=shape, read=lambda: tensor.read().reshape(shape))
