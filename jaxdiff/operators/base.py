"""What every operator has, what every linear one has besides, and their compositions."""

import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.linalg.cg import conjugate_gradients
from jaxdiff.util.arrays import Number
from jaxdiff.util.pytree import field, is_pytree, pytree, static

Shape = tuple[int, ...]
# What an operator that is not linear is told.
METHODS = (
    "DPS takes any differentiable operator, as SpectralPosterior, DAPS, PnPDM, REDDiff, SITCOM and "
    "FastDIPS do"
)


class Operator(ABC):
    """A differentiable map A of images, x [..., H, W, C] → [..., h, w, c].

    A subclass is a pytree (`@jd.pytree`) with `__call__` and, where a measurement's shape does not
    give the image's, `shape` or `input_shape`. `shape` is the (H, W) of the images where the
    operator knows it, and None where it takes any. `A @ B` is the map x → A(B(x)).

    Example:
        >>> import jaxdiff as jd
        >>> @jd.pytree
        ... class Gamma(jd.operators.Operator):
        ...     exponent: float
        ...     def __call__(self, x):
        ...         return x ** self.exponent
        >>> float((Gamma(2.0) @ jd.operators.Crop(1))(np.full((4, 4, 1), 0.5)).mean())
        0.25
    """

    shape: Any = None  # a class attribute, no field
    pixelwise = False  # whether it takes each pixel by itself, and 0 to 0
    ambiguous: Any = False  # whether images far from each other measure the same

    @abstractmethod
    def __call__(self, x) -> jax.Array:
        """A(x)."""

    def input_shape(self, shape: Shape) -> Shape:
        """[..., H, W, C] of the images whose measurements have `shape`."""
        height, width = self.shape or shape[-3:-1]
        return (*shape[:-3], height, width, shape[-1])

    def project(self, y) -> jax.Array:
        """A measurement without what no image can produce, as far as that is plain to see."""
        return y

    @property
    def linear(self) -> "Linear":
        """The linear part of an affine operator.

        Raises:
            TypeError: where it has none, with the methods that do take it.
        """
        raise TypeError(
            f"operator: {self.name} is not linear, no jd.operators.Linear, which this method needs: "
            f"{METHODS}"
        )

    @property
    def name(self) -> str:
        """As messages call it."""
        return type(self).__name__

    def __matmul__(self, inner: "Operator") -> "Operator":
        """The map x → self(inner(x))."""
        for operator in (self, inner):
            if not isinstance(operator, Operator):
                raise TypeError(f"A @ B: expected two operators, got {type(operator).__name__}")
        if isinstance(self, Linear) and isinstance(inner, Linear):
            return LinearCompose(self, inner)
        return Compose(self, inner)


class Linear(Operator):
    """A linear map A, from little more than its call.

    The adjoint comes from JAX's transpose, `solve` and `pinv` from conjugate gradients. Operators
    with closed forms override them, and `factors` where they are a filter.

    Example:
        >>> import jaxdiff as jd
        >>> camera = jd.operators.Crop(4) @ jd.operators.Blur(np.ones((3, 3)) / 9, (16, 16))
        >>> camera(np.ones((16, 16, 3))).shape
        (8, 8, 3)
    """

    @property
    def linear(self) -> "Linear":
        """Itself."""
        return self

    def adjoint(self, y) -> jax.Array:
        """Aᵀy: ⟨Ax, y⟩ = ⟨x, Aᵀy⟩."""
        y = jnp.asarray(y)
        image = jax.ShapeDtypeStruct(self.input_shape(y.shape), y.dtype)
        (x,) = jax.linear_transpose(self.__call__, image)(y)
        return x

    def solve(self, residual, r2, s2) -> jax.Array:
        """Aᵀ(r²AAᵀ + s²I)⁻¹ residual, s² > 0, of one measurement."""
        return self.solve_with_report(residual, r2, s2)[0]

    def solve_with_report(self, residual, r2, s2) -> tuple[jax.Array, dict[str, jax.Array]]:
        """`solve`, and what `conjugate_gradients` says of it: nothing where it is a closed form."""
        if type(self).solve is not Linear.solve:
            return self.solve(residual, r2, s2), {}
        return self._solve_by_cg(residual, r2, s2)

    def _solve_by_cg(self, residual, r2, s2):
        u, report = conjugate_gradients(
            lambda u: r2 * self(self.adjoint(u)) + s2 * u, jnp.asarray(residual)
        )
        return self.adjoint(u), report

    def pinv(self, y) -> jax.Array:
        """A⁺y of one measurement, by conjugate gradients on AᵀA x = Aᵀy from x = 0."""
        return conjugate_gradients(lambda x: self.adjoint(self(x)), self.adjoint(y))[0]

    def spectral(self, function: Callable, x) -> jax.Array:
        """f(AᵀA) x of an image, for a function f of the eigenvalues of AᵀA, elementwise.

        Raises:
            TypeError: where A has no spectral or diagonal form.
        """
        if self.pixelwise:  # a diagonal, of which A1 is all
            return function(self(jnp.ones_like(x)) ** 2) * x
        raise TypeError(
            f"operator: {self.name} has no spectral or diagonal form, which this method needs, as "
            "Blur, Mask, Crop, Downsample, Grey and Demosaic have: DiffPIR takes any linear operator"
        )

    def factors(self, dtype) -> "tuple[Linear | None, Any]":
        """(P, K) with A = P F⁻¹ diag(K) F: what follows a circular filter, and its response.

        P is None where nothing follows; K is 1, or of the shape [H, W//2 + 1, 1] of `rfft2`.
        """
        return self, jnp.ones((), dtype)

    isometric = False  # whether AAᵀ is near a multiple of the identity

    def near(self, dtype) -> "tuple[Linear | None, Any] | None":
        """(Q, K): Q F⁻¹ diag(1/(|K|²S + s²)) F Qᵀ is near (A S Aᵀ + s²I)⁻¹ for a filter S.

        It preconditions what has no closed form: Q is near A⁺ᵀ without the filter, None for the
        identity. None where nothing such is known, or where it would not be positive.
        """
        return (self, jnp.ones((), dtype)) if self.isometric else None


class Isometry(Linear):
    """A linear map with AAᵀ = I on all that it can measure, so that all else is a closed form."""

    isometric = True

    def pinv(self, y) -> jax.Array:
        """A⁺y = Aᵀy."""
        return self.adjoint(y)

    def spectral(self, function, x) -> jax.Array:
        """f(1)·AᵀAx + f(0)·(x − AᵀAx)."""
        seen, one = self.adjoint(self(x)), jnp.ones((), x.dtype)
        return function(one) * seen + function(0 * one) * (x - seen)

    def solve(self, residual, r2, s2) -> jax.Array:
        """Aᵀ(r²AAᵀ + s²I)⁻¹ residual = Aᵀ residual/(r² + s²)."""
        return self.adjoint(residual) / (r2 + s2)


@pytree
class Compose(Operator):
    """The map x → outer(inner(x)), written `outer @ inner`."""

    outer: Operator
    inner: Operator

    @property
    def shape(self) -> tuple[int, int] | None:
        """(H, W) of the images: the inner operator's."""
        return self.inner.shape

    def input_shape(self, shape):
        return self.inner.input_shape(self.outer.input_shape(shape))

    def __call__(self, x):
        return self.outer(self.inner(x))

    def project(self, y):
        y = self.outer.project(y)
        return self.inner.project(y) if self.outer.pixelwise else y

    @property
    def ambiguous(self) -> bool:
        """Where either is."""
        return self.outer.ambiguous or self.inner.ambiguous

    @property
    def linear(self) -> Linear:
        """The composition of the linear parts."""
        return LinearCompose(self.outer.linear, self.inner.linear)


@pytree
class LinearCompose(Linear):
    """`Compose` of two linear operators."""

    outer: Linear
    inner: Linear

    input_shape = Compose.input_shape
    __call__ = Compose.__call__
    project = Compose.project

    @property
    def shape(self) -> tuple[int, int] | None:
        """(H, W) of the images: the inner operator's."""
        return self.inner.shape

    def adjoint(self, y):
        return self.inner.adjoint(self.outer.adjoint(y))

    def solve_with_report(self, residual, r2, s2):
        if isinstance(self.inner, Scale):  # AAᵀ of it is s²AAᵀ: a closed form stays one
            s = jnp.asarray(self.inner.scale, jnp.asarray(residual).dtype)
            x, report = self.outer.solve_with_report(residual, s**2 * r2, s2)
            return s * x, report
        return self._solve_by_cg(residual, r2, s2)

    def spectral(self, function, x):
        if isinstance(self.inner, Scale):
            s2 = jnp.asarray(self.inner.scale, x.dtype) ** 2
            return self.outer.spectral(lambda e: function(s2 * e), x)
        return super().spectral(function, x)

    @property
    def pixelwise(self) -> bool:
        """Where both are."""
        return self.outer.pixelwise and self.inner.pixelwise

    @property
    def name(self) -> str:
        """Of both; a change of units goes unnamed."""
        if isinstance(self.inner, Scale):
            return self.outer.name
        return f"{self.outer.name} @ {self.inner.name}"

    def factors(self, dtype):
        first, response = self.inner.factors(dtype)
        if first is not None:
            return self.outer @ first, response
        second, other = self.outer.factors(dtype)
        return second, other * response

    def near(self, dtype):
        inner, outer = self.inner.near(dtype), self.outer.near(dtype)
        if inner is None or outer is None:
            return None
        (first, response), (second, other) = inner, outer
        if first is not None and np.ndim(other):  # a filter after what is none
            return None
        both = (second or first) if first is None or second is None else second @ first
        return both, other * response


@pytree
class Scale(Linear):
    """The map x → scale·x."""

    scale: Number
    pixelwise = True

    def __call__(self, x):
        x = jnp.asarray(x)
        return jnp.asarray(self.scale, x.dtype) * x

    def adjoint(self, y):
        return self(y)

    def pinv(self, y):
        y = jnp.asarray(y)
        return y / jnp.asarray(self.scale, y.dtype)

    def solve(self, residual, r2, s2):
        residual = jnp.asarray(residual)
        s = jnp.asarray(self.scale, residual.dtype)
        return s * residual / (r2 * s**2 + s2)

    def spectral(self, function, x):
        return function(jnp.asarray(self.scale, x.dtype) ** 2) * x

    def factors(self, dtype):
        return None, jnp.asarray(self.scale, dtype)

    near = factors


@pytree
class Affine(Operator):
    """The map x → scale·x + shift: from a prior's states to images, 1/2 and 1/2 for [-1, 1].

    Raises:
        ValueError: for a scale of 0.

    Example:
        >>> Affine(0.5, 0.5)(np.array([-1.0, 1.0])).tolist()
        [0.0, 1.0]
    """

    scale: Number = field(converter=np.float64)
    shift: Number = field(converter=np.float64)

    def __post_init__(self):
        if not self.scale:
            raise ValueError("scale: expected a number other than 0")

    def __call__(self, x):
        x = jnp.asarray(x)
        return jnp.asarray(self.scale, x.dtype) * x + jnp.asarray(self.shift, x.dtype)

    @property
    def linear(self) -> Linear:
        """Without the shift."""
        return Scale(self.scale)

    def pinv(self, y):
        """The state whose image is y."""
        y = jnp.asarray(y)
        return (y - jnp.asarray(self.shift, y.dtype)) / jnp.asarray(self.scale, y.dtype)


@pytree
class Function(Operator):
    """Any differentiable function of one image as an operator: a callable pytree, or a function.

    A plain function belongs to the program: another one compiles again, and arrays that it closes
    over become constants. A pytree's arrays are arguments.
    """

    call: Any
    function: Callable | None = static(default=None)

    @property
    def shape(self) -> tuple[int, int] | None:
        """(H, W) of the images, where the callable has such an attribute."""
        return getattr(self.function or self.call, "shape", None)

    @property
    def name(self) -> str:
        """The class's or the function's."""
        return getattr(self.function, "__name__", type(self.call).__name__)

    def __call__(self, x):
        return (self.function or self.call)(x)


def as_operator(operator) -> Operator:
    """An operator from what a user passes: an operator, a callable pytree, or a function.

    Raises:
        TypeError: for anything else, such as an object of a class that is no pytree.
    """
    if isinstance(operator, Operator) and is_pytree(operator):
        return operator
    name = type(operator).__name__
    if not callable(operator) or isinstance(operator, type):
        raise TypeError(f"operator: expected one of jd.operators or a function, got {operator!r}")
    if is_pytree(operator):
        return Function(operator)
    plain = inspect.isroutine(operator) or isinstance(operator, functools.partial)
    if not plain and not hasattr(operator, "__wrapped__"):  # of jax.jit and its like
        raise TypeError(
            f"operator: {name} is no pytree: put @jd.pytree above its class, and declare its "
            "arrays as fields"
        )
    return Function(None, operator)
