"""Frozen dataclasses that are pytrees."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform

import jax
import jax.core
import numpy as np
from flax import nnx

T = TypeVar("T", bound=type)


def field(*, converter: Callable | None = None, static: bool = False, **kwargs: Any) -> Any:
    """A dataclass field; `converter` is applied to what the user passes, once."""
    return dataclasses.field(metadata={"static": static, "converter": converter}, **kwargs)


def static(**kwargs: Any) -> Any:
    """A dataclass field that belongs to the tree's structure: changing it recompiles."""
    return field(static=True, **kwargs)


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field, field, static))
def pytree(cls: T) -> T:
    """Make `cls` a frozen dataclass whose fields are pytree children, except `static()` ones.

    Unlike `jax.tree_util.register_dataclass`, unflattening does not call `__init__`: converters,
    and a `__post_init__` that validates, run once, on what the user passed, and never on tracers.
    What `__post_init__` returns is a dictionary of fields to fill in, or None.

    Example:
        >>> @pytree
        ... class Scaled:
        ...     weight: Any
        ...     def __call__(self, x):
        ...         return self.weight * x
        >>> jax.tree.map(lambda w: 2 * w, Scaled(3.0))(1.0)
        6.0
    """
    wrapped: Any = cls
    wrapped.__post_init__ = _initialised(cls)
    wrapped.__repr__ = describe
    cls = dataclasses.dataclass(frozen=True, eq=False, repr=False)(cls)
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


@dataclass_transform(frozen_default=True, eq_default=True)
def frozen(cls: T) -> T:
    """Make `cls` a frozen dataclass that is compared by value: what a file of JSON says.

    Lists become tuples, so that it can be hashed; what `__post_init__` returns is filled in.
    """
    wrapped: Any = cls
    wrapped.__post_init__ = _initialised(cls, lambda v: tuple(v) if isinstance(v, list) else v)
    return dataclasses.dataclass(frozen=True)(cls)


def _initialised(cls, convert: Callable | None = None) -> Callable:
    """A `__post_init__` that converts the fields, checks them, and fills in what the check returns."""
    check = getattr(cls, "__post_init__", None)

    def __post_init__(self, *init_only):
        for f in dataclasses.fields(self):
            if (converter := f.metadata.get("converter", convert)) is not None:
                object.__setattr__(self, f.name, converter(getattr(self, f.name)))
        filled = check(self, *init_only) if check is not None else None
        for name, value in (filled or {}).items():
            object.__setattr__(self, name, value)

    return __post_init__


def is_pytree(obj: Any) -> bool:
    """Whether JAX knows how to take `obj` apart: it is no leaf."""
    return not jax.tree_util.all_leaves([obj])


def replace_leaf(obj: Any, **changes: Any) -> Any:
    """A copy with other leaves, without validation: for use under `jit` and `vmap`."""
    return _bare(type(obj), vars(obj) | changes)


def concrete(tree: Any) -> bool:
    """Whether all leaves are arrays whose values can be checked, and no tracers."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def describe(value: Any) -> str:
    """One line about a value: of arrays the type and shape, of networks the number of weights."""
    if isinstance(value, nnx.Module):
        count = sum(leaf.size for leaf in jax.tree.leaves(value))
        return f"{type(value).__name__}({count:,} weights)"
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return f"{value.dtype}{list(value.shape)}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        shown = [(f, getattr(value, f.name)) for f in dataclasses.fields(value)]
        told = (f"{f.name}={describe(v)}" for f, v in shown if v is not f.default)
        return f"{type(value).__name__}({', '.join(told)})"
    if isinstance(value, tuple) and (names := getattr(value, "_fields", None)):
        told = (f"{n}={describe(v)}" for n, v in zip(names, value))
        return f"{type(value).__name__}({', '.join(told)})"
    text = repr(value)
    return text if len(text) <= 80 else f"<{type(value).__name__} of {len(text)} characters>"


def _bare(cls, values):
    obj = object.__new__(cls)
    for name, value in values.items():
        object.__setattr__(obj, name, value)
    return obj
