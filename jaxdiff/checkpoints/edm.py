"""Read EDM's `.pkl` checkpoints without running the source that is stored in them.

A pickle of {ema, loss_fn, augment_pipe, dataset_kwargs}, whose objects are rebuilt by executing
stored source. Here an object is its class's name and its state, and no more.

Source: Karras et al. 2022 (arXiv 2206.00364).
"""

import dataclasses
import mmap
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from jaxdiff.checkpoints.diffusers import network_from_tensors
from jaxdiff.checkpoints.tensors import Tensor, Tensors
from jaxdiff.checkpoints.torch_pickle import Refused, Span, Thing, run
from jaxdiff.checkpoints.torch_zip import read_stream
from jaxdiff.nn.abstract import abstract
from jaxdiff.nn.song import SongConfig, SongUNet

# What the arguments of a network in training say and its function does not depend on.
_TRAINING = {"augment_dim", "dropout", "label_dropout", "use_fp16"}


def is_edm(path: str | Path) -> bool:
    """Whether a file begins as a pickle of Python 3 does, and has EDM's words near its beginning."""
    with open(path, "rb") as file:
        head = file.read(4096)
    return head[:1] == b"\x80" and b"ema" in head and b"_reconstruct_persistent_obj" in head


def read_edm(path: str | Path) -> tuple[SongConfig, Tensors, dict[str, float]]:
    """The configuration, the tensors and the preconditioning of an EDM pickle.

    Nothing of the file is executed: tensors, storages, dictionaries and modules as their names
    and states are admitted, and anything else is refused. `song_from_tensors(config, tensors,
    dtype)` makes the network F of x̂₀ = c_skip·x + c_out·F(c_in·x, ¼ ln σ).

    Returns:
        The SongConfig, the tensors by EDM's names, and `sigma_min`, `sigma_max`, `sigma_data`.

    Raises:
        ValueError: for a file that is no such pickle, is damaged, asks for code, or holds another
            network than SongUNet or another preconditioning than EDM's.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as head:
            return _edm_parts(run(head, _no_storage, _names(path)))
    except OSError:
        raise
    except Exception as e:  # a damaged pickle can raise nearly anything
        raise ValueError(f"{path}: not a checkpoint of EDM, damaged, or asks for code: {e}") from e


def song_from_tensors(config: SongConfig, tensors: Tensors, dtype: Any = jnp.float32) -> SongUNet:
    """A SongUNet holding `tensors` (EDM's names and layout), which are read a few at a time.

    Raises:
        ValueError: lists every missing, unexpected and misshapen tensor.
    """
    network = abstract(lambda rngs: SongUNet(config, rngs=rngs))
    return network_from_tensors(network, tensors, dtype)


def _edm_parts(content: Any) -> tuple[SongConfig, Tensors, dict[str, float]]:
    network = content.get("ema") if isinstance(content, dict) else None
    if not isinstance(network, Thing):
        raise ValueError("it has no network under 'ema'")
    if network.kind != "EDMPrecond":
        raise ValueError(f"its preconditioning is {network.kind[:80]}, expected EDMPrecond")
    model = _dictionary(network, "_modules").get("model")
    if not isinstance(model, Thing) or model.kind != "SongUNet":
        kind = model.kind[:80] if isinstance(model, Thing) else "missing"
        raise ValueError(f"its network is {kind}, expected SongUNet")
    arguments = _dictionary(model, "_init_kwargs")
    known = {field.name for field in dataclasses.fields(SongConfig)}
    if unknown := sorted(map(str, arguments.keys() - known - _TRAINING)):
        raise ValueError(f"{', '.join(unknown)[:200]}: not an argument of SongUNet")
    config = SongConfig(**{k: v for k, v in arguments.items() if k in known})
    tensors = {
        name: tensor
        for name, tensor in _tensors(model, set())
        if not name.endswith("resample_filter") and not name.startswith("map_augment.")
    }
    sigmas = {}
    for name in ("sigma_min", "sigma_max", "sigma_data"):
        value = network.state.get(name)
        if not (isinstance(value, int | float) and value >= 0):
            raise ValueError(f"{name}: expected a number from 0 on, got {str(value)[:80]}")
        sigmas[name] = float(value)
    return config, tensors, sigmas


def _tensors(module: Thing, seen: set[int], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a module and those inside it, as torch's state dictionary has them."""
    if id(module) in seen:  # a file of a few bytes could else have any number of them
        raise ValueError(f"a {module.kind[:80]} is inside itself, or there twice")
    seen.add(id(module))
    for kind in ("_parameters", "_buffers"):
        for name, tensor in _dictionary(module, kind).items():
            if isinstance(tensor, Tensor):
                yield f"{prefix}{name}", tensor
            elif tensor is not None:
                raise ValueError(f"{str(name)[:80]}: expected a tensor")
    for name, inner in _dictionary(module, "_modules").items():
        if isinstance(inner, Thing):
            yield from _tensors(inner, seen, f"{prefix}{name}.")
        elif inner is not None:
            raise ValueError(f"{str(name)[:80]}: expected a module")


def _dictionary(thing: Thing, name: str) -> dict[str, Any]:
    found = thing.state.get(name)
    if not isinstance(found, dict):
        raise ValueError(f"{thing.kind[:80]} has no {name}")
    return found


def _persistent(meta: Any) -> Thing:
    """An object that EDM would rebuild by running `meta["module_src"]`."""
    if not isinstance(meta, dict) or not isinstance(meta.get("class_name"), str):
        raise ValueError("an object without the name of its class")
    if not isinstance(state := meta.get("state"), dict):
        raise ValueError(f"the state of {meta['class_name'][:80]} is no dictionary")
    return Thing(meta["class_name"], state)


def _no_storage(*_):
    raise Refused("it refers to another file")


def _names(path: Path) -> dict[str, Callable[..., Any]]:
    """What stands for the calls of an EDM pickle."""

    def storage(content):  # a storage's `bytes` are a file of torch's in themselves
        if type(content) is not Span:
            raise Refused("a storage that is no bytes")
        return read_stream(path, *content)

    containers = {
        f"torch.nn.modules.container {name}": partial(Thing, name)
        for name in ("ModuleDict", "ModuleList", "Sequential")
    }
    return containers | {
        "torch.storage _load_from_bytes": storage,
        "torch_utils.persistence _reconstruct_persistent_obj": _persistent,
        "dnnlib.util EasyDict": lambda: {},
        "builtins set": _strings,
    }


def _strings(items: Any = ()) -> set[str]:
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
        raise Refused("a set of other things than strings")
    return set(items)
