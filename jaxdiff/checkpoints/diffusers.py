"""Read and write diffusers' UNet2DModel checkpoints, without torch and without diffusers."""

import json
import os
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors.numpy import save_file

from jaxdiff.checkpoints.names import (
    check_fit,
    from_torch_layout,
    modern,
    to_torch_layout,
    torch_name,
    torch_shape,
)
from jaxdiff.checkpoints.sources import CONFIG, finder, scheduler_of_run
from jaxdiff.checkpoints.tensors import Tensors
from jaxdiff.checkpoints.weights import STEM, open_weights
from jaxdiff.nn.config import UNet2DConfig
from jaxdiff.nn.unet import UNet2D, abstract_unet
from jaxdiff.schedules import Schedule
from jaxdiff.util.files import read_json
from jaxdiff.util.together import write_together

_READERS = min(4, os.cpu_count() or 1)  # threads
_ALIGNMENT = 64  # bytes, as a line of the cache
SCHEDULER = "scheduler_config.json"
INDEX = "model_index.json"

_PIPELINES = {  # of diffusers, by what samples with them
    "DDPMScheduler": "DDPMPipeline",
    "ScoreSdeVeScheduler": "ScoreSdeVePipeline",
    "CMStochasticIterativeScheduler": "ConsistencyModelPipeline",
}

Contents = Mapping[str, Callable[[Path], Any]]  # files by name, with what writes each


def load(
    source: str | Path,
    *,
    dtype: Any = jnp.float32,
    revision: str | None = None,
    token: str | None = None,
) -> tuple[UNet2D, Schedule]:
    """Load a checkpoint of diffusers' UNet2DModel as `(unet, schedule)`.

    Reads both folder layouts (`unet/` and `scheduler/`, or all in one folder) and those of diffusers'
    training script (`checkpoint-500/`, its `unet_ema/`), `.safetensors` and `.bin`, whole or in
    shards, full precision or the fp16 variant, today's attention names and those of diffusers before
    0.13. A folder without a scheduler gets the DDPM defaults and a warning. Hub files go through
    huggingface_hub: its cache, its tokens, its offline mode. Nothing in a checkpoint is run.

    Args:
        source: `"photos64"` or `"faces64"` (the bundled priors), a local folder, or a hub id such as
            `"google/ddpm-ema-celebahq-256"`.
        dtype: of the weights and the computation: float32, bfloat16, float16 or float64 (which
            needs `jax.config.update("jax_enable_x64", True)`).
        revision: of a hub id, its branch, tag or commit; by default its main branch.
        token: of your account on the hub; by default the one that `hf auth login` has kept.

    Raises:
        FileNotFoundError: where there is no such checkpoint or revision. OSError: where the hub does not answer.
        ValueError: for a config that names no UNet2D, an unknown scheduler, a prior of latents
            (`jd.prior` reads it), a damaged file, a `.bin` with anything but tensors, weights that are
            not finite, and, all in one message, missing, unexpected and misshapen tensors.

    Example:
        >>> unet, schedule = load("faces64")
        >>> unet.config.sample_size, schedule.num_train_timesteps
        (64, 1000)
    """
    files = find_files(source, revision, token)
    if files.decoder is not None:
        raise ValueError(
            f"{source}: a prior of latents, whose pixels are its {files.decoder}'s: jd.prior reads it"
        )
    return read_network(source, files, check_dtype(dtype))


def check_dtype(dtype: Any) -> Any:
    """A floating-point type that JAX has switched on.

    Raises:
        ValueError: for any other.
    """
    dtype = jnp.dtype(dtype)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"dtype: expected a floating-point type, got {dtype.name}")
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise ValueError('dtype: float64 needs jax.config.update("jax_enable_x64", True) first')
    return dtype


def unet_from_tensors(config: UNet2DConfig, tensors: Tensors, dtype: Any) -> UNet2D:
    """A UNet2D holding `tensors`; raises as `network_from_tensors` does."""
    return network_from_tensors(abstract_unet(config), tensors, dtype)


def network_from_tensors(network: Any, tensors: Tensors, dtype: Any) -> Any:
    """An abstract network, filled with `tensors` (torch's names and layout), read a few at a time.

    Raises:
        ValueError: for tensors that do not fit the network, and numbers that are not finite.
    """
    graph, state = nnx.split(network)
    params = nnx.to_flat_state(state)
    tensors = modern(tensors)
    check_fit(tensors, {torch_name(path): torch_shape(path, p.shape) for path, p in params})

    # JAX's contexts are a thread's own, and the threads below have none.
    context: Any = jax.config
    device, x64 = context.jax_default_device, context.jax_enable_x64

    def read(item):
        path, param = item
        name = torch_name(path)
        array = filled(from_torch_layout(path, tensors[name].read()), dtype)
        check_finite(name, array)
        with jax.default_device(device), jax.enable_x64(x64):
            return path, param.replace(jax.device_put(array))  # on a CPU that memory

    with ThreadPoolExecutor(_READERS) as pool:  # which all let go of Python's lock
        return nnx.merge(graph, nnx.from_flat_state(list(pool.map(read, params))))


def save(
    folder: str | Path, unet: UNet2D, schedule: Schedule, *, beside: Contents | None = None
) -> None:
    """Write a folder that `jd.load`, `UNet2DModel.from_pretrained` and the schedule's pipeline read.

    All files lie flat in `folder`. They replace files of the same names as one: whenever the process
    is stopped, the folder holds all of the old ones or all of the new. Other files are left alone.

    Args:
        beside: further files that belong to these weights, such as a model card: names, each with
            the function that writes it to a path.

    Raises:
        FileExistsError: where `folder` has a `unet/`, which would be loaded instead.
        ValueError: for weights that are not finite.

    Example:
        >>> import tempfile
        >>> unet, schedule = load("faces64")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(folder, unet, schedule)
        ...     sorted(p.name for p in Path(folder).iterdir())[:2]
        ['config.json', 'diffusion_pytorch_model.safetensors']
    """
    write_folder(folder, {**contents_of(unet, schedule), **(beside or {})})


def contents_of(unet: UNet2D, schedule: Schedule) -> dict[str, Callable[[Path], Any]]:
    """The names of a flat checkpoint's files, each with the function that writes it."""
    tensors = {
        torch_name(path): to_torch_layout(path, np.asarray(param[...]))
        for path, param in nnx.to_flat_state(nnx.state(unet, nnx.Param))
    }
    for name, array in tensors.items():
        check_finite(name, array)
    scheduler = schedule.to_config()
    name = scheduler["_class_name"]
    index = {
        "_class_name": _PIPELINES.get(name),
        "scheduler": ["diffusers", name],
        "unet": ["diffusers", "UNet2DModel"],
    }

    def json_file(content):
        text = json.dumps(content, indent=2) + "\n"
        return lambda path: path.write_text(text, encoding="utf-8")

    contents = {
        f"{STEM}.safetensors": lambda path: save_file(tensors, path, metadata={"format": "pt"}),
        CONFIG: json_file(unet.config.to_dict()),
        SCHEDULER: json_file(scheduler),
    }
    return contents | ({INDEX: json_file(index)} if name in _PIPELINES else {})


def write_folder(folder: str | Path, contents: Contents) -> None:
    """Write the files of a flat checkpoint together; raises as `save` does."""
    folder = Path(folder)
    if (folder / "unet").exists():
        raise FileExistsError(
            f"{folder} holds a checkpoint in unet/ and scheduler/: choose another"
        )
    write_together(folder, contents, key=CONFIG)


def filled(found: np.ndarray, dtype: Any) -> np.ndarray:
    """A contiguous copy, in memory that starts where JAX's CPU arrays do: it takes that over as it is.

    Line by line of the cache, since `found` is transposed: twice as fast where it is large.
    """
    size = found.size * np.dtype(dtype).itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    array = memory[start : start + size].view(dtype).reshape(found.shape)
    line = _ALIGNMENT // 4
    parts: list[Any] = [...]
    if found.ndim > 1:
        parts = [(..., slice(i, i + line)) for i in range(0, found.shape[-1], line)]
    with np.errstate(over="ignore", invalid="ignore"):  # which `check_finite` finds
        for part in parts:
            np.copyto(array[part], found[part], casting="unsafe")
    return array


def check_finite(name: str, array: np.ndarray) -> None:
    """Raises ValueError where a number is none."""
    with np.errstate(over="ignore", invalid="ignore"):
        sum_of_all = array.sum()  # not finite where a number is not, without an array of booleans
    if not np.isfinite(sum_of_all) and not np.isfinite(array).all():
        raise ValueError(f"{name}: holds NaN or infinite values in {array.dtype.name}")


class Files(NamedTuple):
    """Where a checkpoint's files are."""

    find: Callable[[str], Path | None]
    prefix: str  # of the network's
    config: Path
    scheduler: Path | None
    index: Path | None
    decoder: str | None  # the folder of its latents' decoder


def find_files(source: str | Path, revision=None, token=None) -> Files:
    """The files of a folder of diffusers, or of one on the hub.

    Raises:
        FileNotFoundError: where there is none.
    """
    find = finder(source, revision, token)
    # diffusers takes the subfolder if it is there and the root if not.
    for prefix in ("unet/", "", "unet_ema/"):
        if config := find(f"{prefix}{CONFIG}"):
            break
    else:
        raise FileNotFoundError(
            f"{source}: no diffusers checkpoint: neither unet/config.json nor config.json is there"
        )
    index = find(INDEX)
    parts = read_json(index) if index else {}
    decoder = next((name for name in ("vqvae", "vae", "movq") if name in parts), None)
    scheduler = find(f"scheduler/{SCHEDULER}") or find(SCHEDULER)
    if scheduler is None and (scheduler := scheduler_of_run(Path(source).absolute())):
        warnings.warn(f"{source}: no {SCHEDULER}, using {scheduler}", stacklevel=3)
    return Files(find, prefix, config, scheduler, index, decoder)


def read_network(
    source: str | Path, files: Files, dtype, config: Mapping[str, Any] | None = None
) -> tuple[UNet2D, Schedule]:
    """The network and the schedule of these files; `config` in the place of the config.json.

    Raises:
        What `load` raises.
    """
    if config is None:
        unet = _read(files.config, UNet2DConfig.from_dict)
    else:
        unet = UNet2DConfig.from_dict(config)
    if files.scheduler is not None:
        schedule = _read(files.scheduler, _schedule)
    elif unet.time_embedding_type == "fourier":
        raise ValueError(
            f"{source}: no {SCHEDULER}, and time_embedding_type 'fourier' is of no DDPM: its noise is "
            "not known"
        )
    else:
        warnings.warn(f"{source}: no {SCHEDULER}, using the DDPM defaults", stacklevel=3)
        schedule = Schedule.from_config()
    tensors = open_weights(source, files.find, files.prefix)
    try:
        return unet_from_tensors(unet, tensors, dtype), schedule
    except ValueError as e:
        raise ValueError(f"{source}: {e}") from e


def _schedule(config: dict[str, Any]) -> Schedule:
    schedule = Schedule.from_config(config)
    schedule.check()
    return schedule


def _read(path: Path, build: Callable[[dict[str, Any]], Any]) -> Any:
    """What `build` makes of a JSON file, whose name its errors get."""
    content = read_json(path)
    try:
        return build(content)
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from e
