"""Checks of what a user passes, made once, at construction."""

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxdiff.operators import Linear, Stack
from jaxdiff.util.pytree import concrete


def nonnegative(name: str, value, batch: int | None = None) -> np.ndarray | jax.Array:
    """A scalar array, so that another value of it does not recompile; or one for each of a batch.

    Raises:
        ValueError: where it is no finite number ≥ 0.
    """
    if isinstance(value, jax.core.Tracer):
        return value
    array = np.asarray(value)
    fits = array.shape in ((), (batch,)) and array.dtype.kind in "fiu"
    if not (fits and ((array >= 0) & (array < np.inf)).all()):
        raise ValueError(f"{name}: expected a finite number ≥ 0, got {value!r}")
    return array.astype(np.float64)


def measurement(y, operator, denoiser):
    """A measurement of the operator, [*out] or a batch [B, *out].

    Raises:
        ValueError: for another shape, integers, or numbers that are not finite.
    """
    if isinstance(y, jax.core.Tracer):
        return y
    y = y if isinstance(y, jax.Array) else np.asarray(y)
    if not jnp.issubdtype(y.dtype, jnp.floating):
        raise ValueError(f"y: expected floats in image units [0, 1], got {y.dtype}: divide by 255")
    out = _output_shape(operator, denoiser, y)
    if isinstance(operator, Stack) and y.shape != (len(operator), *out):
        raise ValueError(
            f"y: expected one measurement for each of the stack's operators "
            f"{[len(operator), *out]}, got {list(y.shape)}"
        )
    if y.shape not in (out, (*y.shape[:1], *out)):
        raise ValueError(
            f"y: expected the operator's output {list(out)} or a batch of it [B, "
            f"{', '.join(map(str, out))}], got {list(y.shape)}"
        )
    if not np.isfinite(np.asarray(y, np.float32)).all():  # numpy: also inside a caller's jit
        raise ValueError("y: holds NaN or infinite values")
    return operator.project(y) if isinstance(_first(operator), Linear) else y


def linear(operator, denoiser, y) -> None:
    """Raises TypeError for no `Linear`, ValueError where A(a + b) or A(2a) say it is not linear."""
    one = _first(operator)
    if not isinstance(one, Linear):
        raise TypeError(
            f"operator: expected a linear one, of jd.operators or a subclass of "
            f"jd.operators.Linear, got {type(one).__name__}"
        )
    if not concrete(one):
        return
    shape = image_shape(operator, denoiser, y)
    a, b = np.random.default_rng(0).random((2, *shape), np.float32)
    ya, yb = one(a), one(b)
    tolerance = 1e-4 * float(jnp.abs(ya).max() + jnp.abs(yb).max())
    for name, got, expected in (("a + b", one(a + b), ya + yb), ("2a", one(2 * a), 2 * ya)):
        if not float(jnp.abs(got - expected).max()) <= tolerance:
            raise ValueError(f"operator: {type(one).__name__} is not linear: A({name}) differs")


def batch_of(y, operator, denoiser) -> int | None:
    """B of a batch of measurements [B, *out], None of a single one."""
    return y.shape[0] if y.ndim > len(_output_shape(operator, denoiser, y)) else None


def image_shape(operator, denoiser, y) -> tuple[int, int, int]:
    """[H, W, C] of the images: the size that the operator names, or else the prior's."""
    one, known = _first(operator), getattr(denoiser, "shape", None)
    if known is None:
        out = np.shape(y)[-3:]
        known = one.input_shape(out) if isinstance(one, Linear) else out
    height, width = one.shape or known[:2]
    return height, width, known[-1]


def _output_shape(operator, denoiser, y) -> tuple[int, ...]:
    """Of one measurement."""
    shape = image_shape(operator, denoiser, y)
    return jax.eval_shape(_first(operator), jax.ShapeDtypeStruct(shape, jnp.float32)).shape


def _first(operator):
    return operator[0] if isinstance(operator, Stack) else operator
