"""From torch's names and layouts to ours: torch's module path is the attribute path here."""

import re
from collections.abc import Iterable

import numpy as np

from jaxdiff.checkpoints.tensors import Tensors

_OLD_ATTENTION = re.compile(r"(\.attentions\.\d+)\.(query|key|value|proj_attn)\.")
_NEW_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_WRAPPERS = ("module.", "_orig_mod.")  # of DistributedDataParallel and of torch.compile
_FLOATS = ("float64", "float32", "float16", "bfloat16")


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


def unwrapped(tensors: Tensors) -> Tensors:
    """The tensors by their names without the prefix of DistributedDataParallel or torch.compile."""
    for prefix in (*_WRAPPERS, *_WRAPPERS):
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def modern(tensors: Tensors) -> Tensors:
    """The tensors by today's names: without a wrapper's prefix, attention as since diffusers 0.13.

    Raises:
        ValueError: where two tensors have one name.
    """
    tensors = unwrapped(tensors)
    if "time_proj.W" in tensors:  # the first releases kept these frequencies under two names
        tensors = {"time_proj.weight": tensors["time_proj.W"]} | tensors
        del tensors["time_proj.W"]
    renamed: Tensors = {}
    for name, tensor in tensors.items():
        new = _OLD_ATTENTION.sub(lambda m: f"{m[1]}.{_NEW_ATTENTION[m[2]]}.", name)
        if new in renamed:
            raise ValueError(f"{new}: there twice, by its old name too")
        renamed[new] = tensor
    return renamed


def check_fit(tensors: Tensors, expected: dict[str, tuple[int, ...]]) -> None:
    """Raise a ValueError that names what is missing, unexpected, misshapen, or no floats."""
    both = sorted(expected.keys() & tensors.keys())
    found = {
        "missing": sorted(expected.keys() - tensors.keys()),
        "unexpected": sorted(tensors.keys() - expected.keys()),
        "misshapen": [
            f"{name} (expected {list(expected[name])}, got {list(tensors[name].shape)})"
            for name in both
            if tensors[name].shape != expected[name]
        ],
        "of a type that is no weight's": [
            f"{name} ({tensors[name].dtype})" for name in both if tensors[name].dtype not in _FLOATS
        ],
    }
    if any(found.values()):
        problems = (
            f"{len(names)} {kind}: {listed(names)}" for kind, names in found.items() if names
        )
        raise ValueError("the tensors do not fit the config: " + "; ".join(problems))


def listed(names: Iterable[str], most: int = 5) -> str:
    """The first few names, and how many there are besides.

    Example:
        >>> listed("abcdefgh")
        'a, b, c, d, e and 3 more'
    """
    names = [name if len(name) <= 120 else f"{name[:117]}..." for name in names]
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def _torch_axes(path: tuple, ndim: int) -> tuple[int, ...]:
    axes = {("kernel", 4): (3, 2, 0, 1), ("kernel", 2): (1, 0)}
    return axes.get((path[-1], ndim), tuple(range(ndim)))
