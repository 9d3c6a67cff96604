"""Read EDM's `.pkl` checkpoints without running the source that is stored in them.

A pickle of {ema, loss_fn, augment_pipe, dataset_kwargs}, whose objects are rebuilt by executing
stored source. Here an object is its class's name and its state, and no more.

Source: Karras et al. 2022 (arXiv 2206.00364).
"""

import dataclasses
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from jaxdiff.checkpoints.diffusers import network_from_tensors
from jaxdiff.checkpoints.pickles import (
    Held,
    Name,
    Stream,
    Thing,
    Unpickler,
    Window,
    names_of,
    ordered,
)
from jaxdiff.checkpoints.torch_legacy import NAMES, load_stream
from jaxdiff.checkpoints.torch_zip import Tensor
from jaxdiff.nn.abstract import abstract
from jaxdiff.nn.song import SongConfig, SongUNet

_DEEPEST = 16  # modules inside modules; EDM has five
# What the arguments of a network in training say and its function does not depend on.
_TRAINING = {"augment_dim", "dropout", "label_dropout", "use_fp16"}


def is_edm(path: str | Path) -> bool:
    """Whether a file begins as a pickle of Python 3 does, and has EDM's words near its beginning."""
    with open(path, "rb") as file:
        head = file.read(4096)
    return head[:1] == b"\x80" and b"ema" in head and b"_reconstruct_persistent_obj" in head


def read_edm(path: str | Path) -> tuple[SongConfig, dict[str, Tensor], dict[str, float]]:
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
        content = Unpickler(Stream(Window(path)), _NAMES).load()
        return _edm_parts(content)
    except OSError:
        raise
    except Exception as e:  # a damaged pickle can raise nearly anything
        raise ValueError(f"{path}: not a checkpoint of EDM, damaged, or asks for code: {e}") from e


def song_from_tensors(
    config: SongConfig, tensors: Mapping[str, Tensor], dtype: Any = jnp.float32
) -> SongUNet:
    """A SongUNet holding `tensors` (EDM's names and layout), which are read a few at a time.

    Raises:
        ValueError: lists every missing, unexpected and misshapen tensor.
    """
    network = abstract(lambda rngs: SongUNet(config, rngs=rngs))
    return network_from_tensors(network, dict(tensors), dtype)


def _edm_parts(content: Any) -> tuple[SongConfig, dict[str, Tensor], dict[str, float]]:
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
        for name, tensor in _tensors(model)
        if not name.endswith("resample_filter") and not name.startswith("map_augment.")
    }
    sigmas = {}
    for name in ("sigma_min", "sigma_max", "sigma_data"):
        value = network.state.get(name)
        if not (isinstance(value, int | float) and value >= 0):
            raise ValueError(f"{name}: expected a number from 0 on, got {str(value)[:80]}")
        sigmas[name] = float(value)
    return config, tensors, sigmas


def _tensors(module: Thing, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a module and those inside it, as torch's state dictionary has them."""
    if depth > _DEEPEST:
        raise ValueError("its modules lie too deep inside each other")
    for kind in ("_parameters", "_buffers"):
        for name, tensor in _dictionary(module, kind).items():
            if isinstance(tensor, Tensor):
                yield f"{prefix}{name}", tensor
            elif tensor is not None:
                raise ValueError(f"{str(name)[:80]}: expected a tensor")
    for name, inner in _dictionary(module, "_modules").items():
        if isinstance(inner, Thing):
            yield from _tensors(inner, f"{prefix}{name}.", depth + 1)
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
    thing = Thing(meta["class_name"])
    if not isinstance(state := meta.get("state"), dict):
        raise ValueError(f"the state of {thing.kind[:80]} is no dictionary")
    thing.state = state
    return thing


def _storage(content: Any) -> Any:
    if isinstance(content, bytes):
        return load_stream(Held(content))
    if isinstance(content, Window):
        return load_stream(content)
    raise ValueError("a storage that is no bytes")


_NAMES = {
    **NAMES,
    ("torch.storage", "_load_from_bytes"): Name(_storage),
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): Name(_persistent),
    ("dnnlib.util", "EasyDict"): Name(ordered),
    ("builtins", "set"): Name(names_of),
    **{
        ("torch.nn.modules.container", name): Name(partial(Thing, name))
        for name in ("ModuleDict", "ModuleList", "Sequential")
    },
}
