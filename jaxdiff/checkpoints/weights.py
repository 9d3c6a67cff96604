"""The weight files of a diffusers checkpoint: `.safetensors` or `.bin`, whole or in shards."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from jaxdiff.checkpoints.names import listed
from jaxdiff.checkpoints.tensors import Tensor, Tensors
from jaxdiff.checkpoints.torch_zip import read_torch_zip
from jaxdiff.util.files import read_json

STEM = "diffusion_pytorch_model"
# In diffusers' own order of preference; the fp16 variant only where there is nothing else.
_NAMES = (
    f"{STEM}.safetensors",
    f"{STEM}.safetensors.index.json",
    f"{STEM}.bin",
    f"{STEM}.bin.index.json",
    f"{STEM}.fp16.safetensors",
    f"{STEM}.safetensors.index.fp16.json",
    f"{STEM}.fp16.bin",
    f"{STEM}.bin.index.fp16.json",
)
_DTYPES: dict[str, Any] = {  # of those that weights have
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
}


def open_weights(source, find: Callable[[str], Path | None], prefix: str) -> Tensors:
    """The tensors of a checkpoint, by the names in its files; their numbers are not read yet.

    Raises:
        FileNotFoundError: where there are no weights, or a shard is missing.
        ValueError: for a damaged file, and for a tensor that two shards have.
    """
    for name in _NAMES:
        if (path := find(prefix + name)) is None:
            continue
        if not name.endswith(".json"):
            return open_file(path)
        return _open_shards(path, lambda shard: find(prefix + shard))
    raise FileNotFoundError(f"{source}: no weights: expected {prefix}{_NAMES[0]} or {_NAMES[2]}")


def open_file(path: Path) -> Tensors:
    """The tensors of one file.

    Raises:
        ValueError: for a damaged file, and a `.bin` that holds anything but tensors.
    """
    with open(path, "rb") as file:
        head = file.read(24)
    if head == b"version https://git-lfs.":
        raise ValueError(f"{path}: a pointer of Git LFS and not the file: git lfs pull")
    named = path.suffix == ".safetensors" or head[8:9] == b"{"
    return _open_safetensors(path) if named else read_torch_zip(path)


def _open_shards(index: Path, find: Callable[[str], Path | None]) -> Tensors:
    weight_map = read_json(index).get("weight_map")
    shards = list(weight_map.values()) if isinstance(weight_map, dict) else []
    if not shards or not all(isinstance(s, str) and len(s) < 200 for s in shards):
        raise ValueError(f"{index}: expected a weight_map from names to files")
    tensors: Tensors = {}
    for shard in sorted(set(shards)):
        inside = shard == PurePosixPath(shard).name and not set(shard) & set("\\:")
        if not inside or (path := find(shard)) is None:
            raise FileNotFoundError(f"{index}: its shard {shard} is not there")
        found = open_file(path)
        if twice := sorted(found.keys() & tensors.keys()):
            raise ValueError(f"{path}: has {listed(twice)}, which another shard has too")
        tensors |= found
    return tensors


def _open_safetensors(path: Path) -> Tensors:
    """Each tensor's bytes are mapped when it is read and unmapped when its array goes."""
    try:
        with safe_open(path, framework="numpy"):  # checks the header, and the places in it
            pass
    except SafetensorError as e:
        raise ValueError(f"{path}: not a whole safetensors file, download it again ({e})") from e
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))

    def tensor(found: dict[str, Any]) -> Tensor:
        kind, shape, start = found["dtype"], tuple(found["shape"]), found["data_offsets"][0]
        dtype = _DTYPES.get(kind)
        name = kind if dtype is None else np.dtype(dtype).name
        return Tensor(shape, partial(_mapped, path, dtype, 8 + size + start, shape), name)

    return {name: tensor(found) for name, found in header.items() if name != "__metadata__"}


def _mapped(path: Path, dtype: Any, start: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.memmap(path, dtype, "r", start, shape) if 0 not in shape else np.zeros(shape, dtype)
