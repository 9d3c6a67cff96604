"""Frozen dataclasses that are pytrees."""

import dataclasses
from typing import Any, TypeVar, dataclass_transform

import jax
import jax.core

T = TypeVar("T", bound=type)


def static(**kwargs: Any) -> Any:
    """A dataclass field that belongs to the tree's structure: changing it recompiles."""
    return dataclasses.field(metadata={"static": True}, **kwargs)


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field, static))
def pytree(cls: T) -> T:
    """Make `cls` a frozen dataclass whose fields are pytree children, except `static()` ones.

    Unlike `jax.tree_util.register_dataclass`, unflattening does not call `__init__`: a
    `__post_init__` that validates runs once, on what the user passed, and never on tracers.
    """
    cls = dataclasses.dataclass(frozen=True, eq=False)(cls)
    fields = dataclasses.fields(cls)
    data = [f.name for f in fields if not f.metadata.get("static", False)]
    meta = [f.name for f in fields if f.metadata.get("static", False)]

    def flatten_with_keys(obj):
        children = [(jax.tree_util.GetAttrKey(n), getattr(obj, n)) for n in data]
        return children, tuple(getattr(obj, n) for n in meta)

    def flatten(obj):
        return [getattr(obj, n) for n in data], tuple(getattr(obj, n) for n in meta)

    def unflatten(static_values, children):
        return _bare(cls, dict(zip(data, children)) | dict(zip(meta, static_values)))

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


def replace_leaf(obj: Any, **changes: Any) -> Any:
    """A copy with other leaves, without validation: for use under `jit` and `vmap`."""
    return _bare(type(obj), vars(obj) | changes)


def concrete(tree: Any) -> bool:
    """Whether all leaves are arrays whose values can be checked, and no tracers."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def _bare(cls, values):
    obj = object.__new__(cls)
    for name, value in values.items():
        object.__setattr__(obj, name, value)
    return obj
