"""Checks of what a user passes, made once, at construction."""

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxdiff.operators import Stack


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
    shape = getattr(denoiser, "shape", None)
    out = _output_shape(operator, shape[-1] if shape else y.shape[-1])
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
    return y


def batch_of(y, operator) -> int | None:
    """B of a batch of measurements [B, *out], None of a single one."""
    return y.shape[0] if y.ndim > len(_output_shape(operator, y.shape[-1])) else None


def _output_shape(operator, channels: int) -> tuple[int, ...]:
    """Of one measurement."""
    one = operator[0] if isinstance(operator, Stack) else operator
    return jax.eval_shape(one, jax.ShapeDtypeStruct((*one.shape, channels), jnp.float32)).shape
