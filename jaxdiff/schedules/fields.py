"""Fields of a `scheduler_config.json`, whose values have any type and size: checked by name."""

import dataclasses
import math
import reprlib
from collections.abc import Collection, Mapping
from numbers import Integral, Real
from typing import Any, NoReturn, TypeVar

import numpy as np

T = TypeVar("T")


def build(config_class: type[T], config: Mapping[str, Any]) -> T:
    """A config of the fields it has; what else a scheduler says is about where it steps."""
    known = {f.name for f in dataclasses.fields(config_class)}  # pyright: ignore[reportArgumentType]
    return config_class(**{k: v for k, v in config.items() if k in known})


def fail(name: str, expected: str, value: Any) -> NoReturn:
    """Raise a ValueError that names the field, what was expected, and what came."""
    raise ValueError(f"{name}: expected {expected}, got {reprlib.repr(value)}")


def is_number(value: Any, kind: type = Real) -> bool:
    """Whether it is a number, and neither true nor false."""
    return isinstance(value, kind) and not isinstance(value, bool)


def check(
    config: Any,
    *,
    choices: Mapping[str, tuple[str, ...]] = {},
    switches: Collection[str] = (),
    numbers: Mapping[str, tuple[float, float]] = {},
    integers: Mapping[str, tuple[float, float]] = {},
) -> None:
    """Check fields by kind; a number is above its first bound and at most its second.

    Raises:
        ValueError: names the field at fault.
    """
    for name, allowed in choices.items():
        if (value := getattr(config, name)) not in allowed:
            fail(name, f"one of {', '.join(allowed)}", value)
    for name in switches:
        if not isinstance(value := getattr(config, name), bool | np.bool_):
            fail(name, "true or false", value)
    for bounds, kind, what in ((integers, Integral, "an integer"), (numbers, Real, "a number")):
        for name, (low, high) in bounds.items():
            value = getattr(config, name)
            if is_number(value, kind) and low < value <= high and value < math.inf:
                continue
            if high < math.inf:
                fail(name, f"{what} in ({low:g}, {high:g}]", value)
            fail(name, f"{what} ≥ {low + 1}" if kind is Integral else f"{what} > {low:g}", value)
