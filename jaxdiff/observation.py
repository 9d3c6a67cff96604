"""What was observed: p(y | x), the operator, the measurement and its noise as one."""

import warnings
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxdiff.noise import Gaussian, Noise
from jaxdiff.operators import Diagonal, Operator, Stack
from jaxdiff.util.arrays import Array
from jaxdiff.util.pytree import concrete, pytree

SIGMA_ZERO = 1e-8  # what σ = 0 counts as where it divides, as in the course


@pytree
class Observation:
    """p(y | x) of y = A(x) + noise.

    `observation @ decode` is p(y | decode(x)): that of a prior's own states, where units and
    decoders end. What a method needs of a measurement, it asks here.

    Args:
        operator: A.
        y: one measurement.
        noise: a `Noise`, or None where only the residual counts.

    Example:
        >>> from jaxdiff.operators import Affine, Scale
        >>> seen = Observation(Scale(2.0), jnp.ones((2, 2, 1)), Gaussian(0.1)) @ Affine(0.5, 0.5)
        >>> float(seen.residual(jnp.zeros((2, 2, 1))).sum())
        0.0
    """

    operator: Operator
    y: Array
    noise: Noise | None = None

    def __matmul__(self, decode: Operator) -> "Observation":
        """Of x where this is of decode(x)."""
        return Observation(self.operator @ decode, self.y, self.noise)

    def whitened(self) -> "Observation":
        """The same of one σ everywhere: (c/σ)·y = (c/σ)·A(x) + c·n where Gaussian noise differs by pixel.

        What a method needs of a linear A and a number σ, it asks of this one.
        """
        if not (isinstance(self.noise, Gaussian) and self.noise.per_pixel):
            return self
        weights, sigma = self.noise.whitening()
        y = jnp.asarray(weights, self.y.dtype) * self.operator.project(jnp.asarray(self.y))
        return Observation(Diagonal(weights) @ self.operator, y, Gaussian(sigma))

    def residual(self, x) -> jax.Array:
        """y − A(x), of one deviation everywhere up to a common factor."""
        mean = self.operator(x)
        y = self.operator.project(jnp.asarray(self.y, mean.dtype))
        return y - mean if self.noise is None else self.noise.residual(y, mean)

    def log_prob(self, x) -> jax.Array:
        """log p(y | x), up to a constant."""
        if self.noise is None:
            raise TypeError("noise: this method needs to know it: pass a sigma or a jd.noise.Noise")
        mean = self.operator(x)
        return self.noise.log_prob(self.operator.project(jnp.asarray(self.y, mean.dtype)), mean)

    def solve(self, residual, r2) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Aᵀ(r²AAᵀ + σ²I)⁻¹ residual of a linear A and Gaussian noise, and how the solver ended.

        Where σ differs by pixel, A and the residual are those of `whitened`.
        """
        seen = self.whitened()
        sigma = jnp.asarray(jnp.where(seen.sigma == 0, SIGMA_ZERO, seen.sigma), residual.dtype)
        return seen.operator.linear.solve_with_report(residual, r2, sigma**2)

    def prox(self, x, variance) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The maximum of log p(y | z) − ‖z − x‖²/(2·variance) over z, of a linear A and Gaussian noise.

        It is the mean of z ~ N(x, variance·I) given y: x + variance·Aᵀ(variance·AAᵀ + σ²I)⁻¹(y − A x).
        """
        step, report = self.solve(self.residual(x), variance)
        return x + variance * step, report

    def draw(self, key, x, variance) -> tuple[jax.Array, dict[str, jax.Array]]:
        """z of the density p(y | z)·N(z; x, variance·I), of a linear A and Gaussian noise.

        By Matheron's rule: z' = x + √variance·n moved as `prox` moves it, but toward y − σ·n'.
        """
        first, second = jax.random.split(key)
        z = x + jnp.sqrt(variance) * jax.random.normal(first, x.shape, x.dtype)
        seen, missed = self.whitened(), self.residual(z)
        noise = jax.random.normal(second, missed.shape, missed.dtype)
        noise = seen.operator.project(jnp.asarray(seen.sigma, x.dtype) * noise)
        step, report = self.solve(missed - noise, variance)
        return z + variance * step, report

    @property
    def sigma(self):
        """σ of Gaussian noise.

        Raises:
            TypeError: for another noise, with the methods that do take it.
            ValueError: for a σ that differs by pixel, which `whitened` has no more.
        """
        if not isinstance(self.noise, Gaussian):
            raise TypeError(
                f"sigma: this method needs Gaussian noise, got {type(self.noise).__name__}: DPS "
                "takes any jd.noise, as SpectralPosterior, DAPS, PnPDM and REDDiff do"
            )
        if self.noise.per_pixel:
            raise ValueError("sigma: differs by pixel: ask the whitened observation")
        return self.noise.sigma


def as_measurement(y) -> Any:
    """A measurement, or a batch of them: floats in image units.

    Raises:
        ValueError: for integers, or numbers that are not finite.
    """
    if isinstance(y, jax.core.Tracer):
        return y
    y = y if isinstance(y, jax.Array) else np.asarray(y)
    if not jnp.issubdtype(y.dtype, jnp.floating):
        raise ValueError(f"y: expected floats in image units [0, 1], got {y.dtype}: divide by 255")
    if not np.isfinite(np.asarray(y, np.float32)).all():  # numpy: also inside a caller's jit
        raise ValueError("y: holds NaN or infinite values")
    return y


def first(operator: Operator | Stack) -> Operator:
    """The operator, or the first one of a stack."""
    return operator[0] if isinstance(operator, Stack) else operator


def is_linear(operator: Operator) -> bool:
    """Whether it is linear, but for a shift."""
    try:
        _ = operator.linear
    except TypeError:
        return False
    return True


def check_linear(operator: Operator | Stack, shape: tuple[int, ...]) -> None:
    """Raises TypeError for no linear operator, ValueError where A(a + b) or A(2a) says so."""
    one = first(operator).linear
    if not concrete(one):
        return
    a, b = np.random.default_rng(0).random((2, *shape), np.float32)
    with jax.ensure_compile_time_eval():  # inside a caller's jit too
        ya, yb = one(a), one(b)
        tolerance = 1e-4 * float(jnp.abs(ya).max() + jnp.abs(yb).max())
        for name, got, expected in (("a + b", one(a + b), ya + yb), ("2a", one(2 * a), 2 * ya)):
            if not float(jnp.abs(got - expected).max()) <= tolerance:
                raise ValueError(f"operator: {one.name} is not linear: A({name}) differs")


def check_spectral(operator: Operator | Stack, shape: tuple[int, ...]) -> None:
    """Raises TypeError for an operator that has no spectral or diagonal form."""
    image = jax.ShapeDtypeStruct(shape, jnp.float32)
    jax.eval_shape(lambda x: first(operator).linear.spectral(jnp.sqrt, x), image)


def check_scale(operator: Operator | Stack, y, sigma, shape: tuple[int, ...]) -> None:
    """Raises ValueError, or warns, where y or σ are not in the units of images in [0, 1].

    By what the operator makes of a white, a black and a random image. Of what is traced nothing is
    known, of the others still; nor of noise without a `sigma`, None.
    """
    largest = None if sigma is None or not concrete(sigma) else float(np.max(sigma))
    if largest is not None and largest > 2:
        raise ValueError(
            f"sigma: {largest:g} is larger than any noise of images in [0, 1]: divide by 255?"
        )
    if largest is not None and largest > 1:
        warnings.warn(f"sigma: {largest:g} is more than white: is it in [0, 1]?", stacklevel=5)
    one = first(operator)
    if not concrete((one, y)):
        return
    probe = np.random.default_rng(0).random(shape, np.float32)
    images = (np.ones(shape, np.float32), np.zeros(shape, np.float32), probe)
    with jax.ensure_compile_time_eval():  # inside a caller's jit too
        answers = np.stack([one(image) for image in images])
    low, high = float(answers.min()), float(answers.max())
    y = np.asarray(y, np.float64)
    reach = 4 * max(abs(low), abs(high), 1) + 8 * (2 if largest is None else largest)
    if np.abs(y).max() > reach:
        raise ValueError(
            f"y: reaches {np.abs(y).max():g}, images in [0, 1] give at most {high:g}: divide by 255?"
        )
    below = np.mean(y < -(0.25 if largest is None else 4 * largest + 0.05))
    if concrete(sigma) and low >= 0 and below > 0.02:
        warnings.warn(
            f"y: {below:.0%} of it is negative beyond its noise, and this operator "
            "gives no negative values: is it in [-1, 1]? Map it to [0, 1]",
            stacklevel=5,
        )


def image_shape(operator: Operator | Stack, known: tuple[int, ...] | None, y) -> tuple[int, ...]:
    """[H, W, C] of the images: the size that the operator names, or else the prior's, `known`."""
    one = first(operator)
    if known is None:
        known = one.input_shape(np.shape(y)[-3:])
    height, width = one.shape or known[:2]
    return height, width, known[-1]


def batch_of(operator: Operator | Stack, known: tuple[int, ...] | None, y) -> int | None:
    """B of a batch of measurements [B, *out], None of a single one.

    Raises:
        ValueError: where y is neither the operator's output nor a batch of it.
    """
    image = jax.ShapeDtypeStruct(image_shape(operator, known, y), jnp.float32)
    out = jax.eval_shape(first(operator), image).shape
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
    return y.shape[0] if y.ndim > len(out) else None
