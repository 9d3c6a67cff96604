"""A short name for what a prior is made of: whether a result or a table is of these very weights."""

import dataclasses
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def fingerprint(*parts: Any) -> str:
    """32 hexadecimal digits of what is in pytrees, such as a network, a schedule, a table.

    Two are equal exactly where all numbers, dtypes, shapes and configs are, whatever the files were
    called and however they were stored. A part with `to_config` (a schedule) is its config, from
    which its arrays follow; another is its arrays, in the tree's order, and the fields of its
    `config` that differ from their defaults, where it has one. It tells contents apart; it proves
    nothing about who made them.

    Example:
        >>> import jaxdiff as jd
        >>> network, schedule = jd.load("faces64")
        >>> len(fingerprint(network, schedule))
        32
        >>> fingerprint(np.zeros(2)) == fingerprint(np.zeros((2, 1)))
        False
    """
    leaves = []
    lines = []
    for part in parts:
        config, arrays = _contents(part)
        lines.append(f"{json.dumps(config, sort_keys=True)} {len(arrays)}")
        leaves += arrays
    with ThreadPoolExecutor() as pool:  # hashing lets go of Python's lock
        lines += pool.map(_digest, leaves)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def of_weights(network: Any) -> np.ndarray:
    """[2, 16] bytes of a network's weights, as float16 and as bfloat16.

    Networks that have a row in common are the same: rewritten or loaded in either of these types, or
    in a wider one, a checkpoint is still the one that it was.
    """
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(network)]
    with np.errstate(over="ignore"):
        names = [fingerprint([a.astype(t) for a in leaves]) for t in (np.float16, jnp.bfloat16)]
    return np.array([list(bytes.fromhex(name)) for name in names], np.uint8)


def _contents(part) -> tuple[Any, list]:
    if hasattr(part, "to_config"):
        return part.to_config(), []
    config = getattr(part, "config", None)
    if dataclasses.is_dataclass(config):
        fields = ((f.name, getattr(config, f.name), f.default) for f in dataclasses.fields(config))
        config = {name: value for name, value, default in fields if value != default}
    return config, jax.tree.leaves(part)


def _digest(leaf) -> str:
    array = np.asarray(leaf, order="C")
    digest = hashlib.sha256(array.reshape(-1).view(np.uint8).data).hexdigest()
    return f"{array.dtype.name} {array.shape} {digest}"
