"""Read and write diffusers' UNet2DModel checkpoints, without torch and without diffusers."""

import importlib.util
import json
import re
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from jaxdiff.checkpoints.sources import finder
from jaxdiff.checkpoints.torch_zip import Tensor, check_tensors, read_torch_zip
from jaxdiff.nn.config import UNet2DConfig
from jaxdiff.nn.unet import UNet2D, abstract_unet
from jaxdiff.schedules.ddpm import Schedule
from jaxdiff.util.files import read_json, replace_file

_STEM = "diffusion_pytorch_model"
# In diffusers' own order of preference; the fp16 variant only where there is nothing else.
_WEIGHTS = (
    f"{_STEM}.safetensors",
    f"{_STEM}.safetensors.index.json",
    f"{_STEM}.bin",
    f"{_STEM}.bin.index.json",
    f"{_STEM}.fp16.safetensors",
    f"{_STEM}.safetensors.index.fp16.json",
    f"{_STEM}.fp16.bin",
    f"{_STEM}.bin.index.fp16.json",
)
# Threads. CelebA-HQ's weights as .bin take 0.60 s, 0.65 with two and 0.97 with one; reading the file
# alone 0.28 (in the page cache, two cores).
_READERS = 4
_OLD_ATTENTION = re.compile(r"(\.attentions\.\d+)\.(query|key|value|proj_attn)\.")
_NEW_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

Tensors = dict[str, Tensor]


def load(source: str | Path, *, dtype: Any = jnp.float32) -> tuple[UNet2D, Schedule]:
    """Load a checkpoint of diffusers' UNet2DModel as `(unet, schedule)`.

    Reads both folder layouts (`unet/` and `scheduler/`, or all in one folder), `.safetensors` and
    `.bin`, whole or in shards, full precision or the fp16 variant, today's attention names and
    those of diffusers before 0.13. A folder without a scheduler gets the DDPM defaults and a
    warning. Hub files go through huggingface_hub: its cache, its tokens, its offline mode.

    Args:
        source: `"faces64"` (the bundled prior), a local folder, or a hub id such as
            `"google/ddpm-ema-celebahq-256"`.
        dtype: of the weights and the computation: float32, bfloat16, float16 or float64 (which
            needs `jax.config.update("jax_enable_x64", True)`).

    Raises:
        FileNotFoundError: where there is no such checkpoint.
        ValueError: for a config that names no UNet2D, a damaged file, a `.bin` with anything but
            tensors, and, all in one message, every missing, unexpected and misshapen tensor.

    Example:
        >>> unet, schedule = load("faces64")
        >>> unet.config.sample_size, schedule.num_train_timesteps
        (64, 1000)
    """
    dtype = jnp.dtype(dtype)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"dtype: expected a floating-point type, got {dtype.name}")
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise ValueError('dtype: float64 needs jax.config.update("jax_enable_x64", True) first')
    find = finder(source)
    prefix = "unet/" if (path := find("unet/config.json")) else ""
    path = path or find("config.json")
    if path is None:
        raise FileNotFoundError(
            f"{source}: no diffusers checkpoint: neither unet/config.json nor config.json is there"
        )
    try:
        config = UNet2DConfig.from_dict(read_json(path))
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from e
    scheduler = find("scheduler/scheduler_config.json") or find("scheduler_config.json")
    if scheduler is None:
        warnings.warn(f"{source}: no scheduler_config.json, using the DDPM defaults", stacklevel=2)
    schedule = Schedule.from_config({} if scheduler is None else read_json(scheduler))
    unet = unet_from_tensors(config, _open_weights(source, find, prefix), dtype)
    return unet, schedule


def unet_from_tensors(config: UNet2DConfig, tensors: Tensors, dtype: Any) -> UNet2D:
    """A UNet2D holding `tensors` (torch's names and layout), which are read a few at a time."""
    return network_from_tensors(abstract_unet(config), tensors, dtype)


def network_from_tensors(network: Any, tensors: Tensors, dtype: Any) -> Any:
    """An abstract network, filled with `tensors` (torch's names and layout), read a few at a time."""
    graph, state = nnx.split(network)
    params = nnx.to_flat_state(state)
    tensors = {_modern_name(name): tensor for name, tensor in tensors.items()}
    expected = {torch_name(path): torch_shape(path, p.shape) for path, p in params}
    _check_names({name: tensor.shape for name, tensor in tensors.items()}, expected)

    # JAX's contexts are a thread's own, and the threads below have none.
    context: Any = jax.config
    device, x64 = context.jax_default_device, context.jax_enable_x64

    def read(item):
        path, param = item
        array = from_torch_layout(path, tensors[torch_name(path)].read())
        with jax.default_device(device), jax.enable_x64(x64):
            return path, param.replace(jnp.asarray(array, dtype))

    with ThreadPoolExecutor(_READERS) as pool:  # which all let go of Python's lock
        return nnx.merge(graph, nnx.from_flat_state(list(pool.map(read, params))))


def save(folder: str | Path, unet: UNet2D, schedule: Schedule) -> None:
    """Write a folder that `jd.load`, `UNet2DModel.from_pretrained` and `DDPMPipeline` read.

    All files lie flat in `folder`. Each is written under a temporary name and renamed, so that a
    folder never holds half a file; files of the same names are replaced, others are left alone.

    Raises:
        FileExistsError: where `folder` has a `unet/`, which would be loaded instead.

    Example:
        >>> import tempfile
        >>> unet, schedule = load("faces64")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(folder, unet, schedule)
        ...     sorted(p.name for p in Path(folder).iterdir())[:2]
        ['config.json', 'diffusion_pytorch_model.safetensors']
    """
    folder = Path(folder)
    if (folder / "unet").exists():
        raise FileExistsError(
            f"{folder} holds a checkpoint in unet/ and scheduler/: choose another"
        )
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        torch_name(path): to_torch_layout(path, np.asarray(param[...]))
        for path, param in nnx.to_flat_state(nnx.state(unet, nnx.Param))
    }
    index = {
        "_class_name": "DDPMPipeline",
        "scheduler": ["diffusers", "DDPMScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
    }
    written = folder / f"{_STEM}.safetensors"
    replace_file(written, lambda p: save_file(tensors, p, metadata={"format": "pt"}))
    for name, content in (
        ("config.json", unet.config.to_dict()),
        ("scheduler_config.json", schedule.to_config()),
        ("model_index.json", index),
    ):
        text = json.dumps(content, indent=2) + "\n"
        replace_file(folder / name, lambda p, text=text: Path(p).write_text(text))


# --- names and layouts: torch's module path is the attribute path here ---------------------------


def torch_name(path: tuple) -> str:
    """The name in torch's state dictionary of the parameter at an nnx path."""
    *modules, leaf = path
    leaf = "weight" if leaf in ("kernel", "scale", "embedding") else leaf
    return ".".join(str(p) for p in (*modules, leaf))


def torch_shape(path: tuple, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of that parameter in torch."""
    return tuple(shape[axis] for axis in _torch_axes(path, len(shape)))


def to_torch_layout(path: tuple, array: np.ndarray) -> np.ndarray:
    """HWIO → OIHW for convolutions, IO → OI for linear layers."""
    return np.ascontiguousarray(array.transpose(_torch_axes(path, array.ndim)))


def from_torch_layout(path: tuple, array: np.ndarray) -> np.ndarray:
    """OIHW → HWIO for convolutions, OI → IO for linear layers."""
    return array.transpose(np.argsort(_torch_axes(path, array.ndim)))


def _torch_axes(path: tuple, ndim: int) -> tuple[int, ...]:
    axes = {("kernel", 4): (3, 2, 0, 1), ("kernel", 2): (1, 0)}
    return axes.get((path[-1], ndim), tuple(range(ndim)))


def _modern_name(name: str) -> str:
    if name == "time_proj.W":  # the first releases kept these frequencies under two names
        return "time_proj.weight"
    return _OLD_ATTENTION.sub(lambda m: f"{m[1]}.{_NEW_ATTENTION[m[2]]}.", name)


def _check_names(found: Mapping[str, tuple], expected: Mapping[str, tuple]) -> None:
    missing = sorted(expected.keys() - found.keys())
    unexpected = sorted(found.keys() - expected.keys())
    misshapen = [
        f"{name} (expected {list(expected[name])}, got {list(found[name])})"
        for name in sorted(expected.keys() & found.keys())
        if tuple(found[name]) != tuple(expected[name])
    ]
    problems = [
        f"{len(names)} {kind}: {', '.join(names)}"
        for kind, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("misshapen", misshapen),
        )
        if names
    ]
    if problems:
        raise ValueError("the tensors do not fit the config: " + "; ".join(problems))


def _open_weights(source, find: Callable[[str], Path | None], prefix: str) -> Tensors:
    for name in _WEIGHTS:
        if (path := find(prefix + name)) is None:
            continue
        if not name.endswith(".json"):
            return _open_file(path)
        shards = sorted(set(read_json(path).get("weight_map", {}).values()))
        tensors: Tensors = {}
        for shard in shards:
            if "/" in shard or (shard_path := find(prefix + shard)) is None:
                raise FileNotFoundError(f"{path}: its shard {shard} is not there")
            tensors |= _open_file(shard_path)
        return tensors
    raise FileNotFoundError(
        f"{source}: no weights: expected {prefix}{_WEIGHTS[0]} or {_WEIGHTS[2]}"
    )


def _open_file(path: Path) -> Tensors:
    if path.suffix == ".safetensors":
        return _open_safetensors(path)
    if importlib.util.find_spec("torch") is not None:
        return _read_torch(path)
    return read_torch_zip(path)


def _open_safetensors(path: Path) -> Tensors:
    def read(name):  # opened again for each: what is mapped stays in memory until the file closes
        with safe_open(path, framework="numpy") as file:
            return file.get_tensor(name)

    try:
        with safe_open(path, framework="numpy") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
    except SafetensorError as e:
        raise ValueError(f"{path}: not a whole safetensors file, download it again ({e})") from e
    return {name: Tensor(shape, partial(read, name)) for name, shape in shapes.items()}


def _read_torch(path: Path) -> Tensors:
    import ml_dtypes
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # torch raises many kinds for a damaged or a refused file
        reason = str(e).strip().splitlines()[0]
        raise ValueError(f"{path}: damaged, or holds something besides tensors ({reason})") from e
    check_tensors(path, state, torch.Tensor)

    def read(name):  # torch's copy goes as ours comes: there are never two of the whole
        tensor = state.pop(name).detach()
        if tensor.dtype == torch.bfloat16:
            return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return tensor.numpy()

    return {name: Tensor(tuple(t.shape), partial(read, name)) for name, t in state.items()}
