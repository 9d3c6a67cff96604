"""Compare a converted network with diffusers, block by block, or with guided-diffusion's."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import torch
from diffusers.models.unets.unet_2d import UNet2DModel

import jaxdiff as jd
from convert import guided_diffusion
from convert.lift import lifted_time_embedding

# The greatest error, relative to the greatest value, that counts as the same function.
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


def verify(
    source: str, converted: Path, dtype: str, config: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Errors of `converted` in jaxdiff against `source` in torch, one row a block.

    Of a folder in diffusers; of guided-diffusion's file, in its own network, the output alone. Both
    networks see the same seeded noise at t = 500. Each row has `block`, `max`, `mean` (of |Δ|) and
    `relative` (max |Δ| / max |reference|). In float64 diffusers' time embedding is lifted to float64.
    """
    if Path(source).is_file():
        model: Any = guided_diffusion.load(Path(source), config or {})
    else:
        model = _diffusers(source)
    model = model.eval().to(getattr(torch, dtype)).requires_grad_(False)
    wide = dtype == "float64"
    with jax.enable_x64(wide), lifted_time_embedding() if wide else contextlib.nullcontext():
        unet, _ = jd.load(converted, dtype=dtype)
        x, t, labels = _inputs(unet.config)
        theirs = _torch_blocks(model, x.astype(dtype), t, labels)
        ours = _jax_blocks(unet, x.astype(dtype), t, labels)
    return [{"block": name} | _errors(ours[name], theirs[name]) for name in theirs]


def _diffusers(source: str) -> Any:
    local = Path(source)
    subfolder = "unet" if (local / "unet").is_dir() else None
    if not local.is_dir():
        with contextlib.suppress(Exception):  # a hub id: diffusers' own two layouts
            UNet2DModel.load_config(source, subfolder="unet")
            subfolder = "unet"
    return UNet2DModel.from_pretrained(source, subfolder=subfolder, low_cpu_mem_usage=False)


def _errors(a, b):
    difference = np.abs(a - b)
    peak = float(np.abs(b).max())
    return {
        "max": float(difference.max()),
        "mean": float(difference.mean()),
        "relative": float(difference.max()) / (peak or 1.0),
    }


def _inputs(config: jd.UNet2DConfig):
    rng = np.random.default_rng(0)
    h, w = config.size or (8 * config.downsampling,) * 2
    x = rng.standard_normal((1, h, w, config.in_channels))
    labels = None
    if config.class_embed_type == "identity":
        labels = rng.standard_normal((1, config.time_embed_dim))
    elif config.class_embed_type or config.num_class_embeds:
        labels = np.zeros(1, np.int64)
    return x, np.array([500]), labels


def _blocks(unet) -> dict[str, Any]:
    """The blocks that a report has rows for; the names are the same on both sides."""
    named = {"conv_in": unet.conv_in, "time_embedding": unet.time_embedding}
    named |= {f"down_blocks.{i}": block for i, block in enumerate(unet.down_blocks)}
    if unet.mid_block is not None:
        named["mid_block"] = unet.mid_block
    return named | {f"up_blocks.{i}": block for i, block in enumerate(unet.up_blocks)}


def _torch_blocks(model, x, t, labels):
    found: dict[str, np.ndarray] = {}

    def nhwc(tensor):
        array = tensor.detach().numpy()
        return np.moveaxis(array, 1, -1) if array.ndim == 4 else array

    def record(name):
        def hook(module, args, output):
            found[name] = nhwc(output[0] if isinstance(output, tuple) else output)

        return hook

    config = getattr(model, "config", None)  # of diffusers' networks
    blocks = {} if config is None else _blocks(model)
    hooks = [b.register_forward_hook(record(name)) for name, b in blocks.items()]
    integers = config is not None and config.time_embedding_type == "learned"
    dtype = next(model.parameters()).dtype
    time = torch.as_tensor(t) if integers else torch.as_tensor(t).to(dtype)
    if labels is not None:
        labels = torch.as_tensor(labels)
        if config is not None and config.class_embed_type is not None:
            labels = labels.to(time.dtype if labels.ndim == 1 else dtype)
    out = model(torch.tensor(x).permute(0, 3, 1, 2).contiguous(), time, labels)
    out = getattr(out, "sample", out)
    for hook in hooks:
        hook.remove()
    return found | {"output": nhwc(out)}


def _jax_blocks(unet, x, t, labels):
    """Outputs of the blocks in one compiled call: their classes' `__call__` is watched in tracing."""

    @jax.jit
    def run(state, x, t, labels):
        found: dict[str, Any] = {}
        with contextlib.ExitStack() as stack:
            for cls in {type(block) for block in _blocks(state).values()}:
                stack.enter_context(mock.patch.object(cls, "__call__", record(cls, found, state)))
            output = state(x, t, labels)
        return found | {"output": output}

    def record(cls, found, state):
        plain, mine = cls.__call__, {id(b): n for n, b in _blocks(state).items()}

        def call(self, *args, **kwargs):
            output = plain(self, *args, **kwargs)
            if id(self) in mine:
                found[mine[id(self)]] = output[0] if isinstance(output, tuple) else output
            return output

        return call

    return jax.tree.map(np.asarray, run(unet, jnp.asarray(x), t, labels))
