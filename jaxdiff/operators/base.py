"""What every linear operator has, and the composition of two."""

from abc import ABC, abstractmethod
from typing import Any

import jax
import jax.numpy as jnp

from jaxdiff.linalg.cg import conjugate_gradients
from jaxdiff.util.pytree import pytree


class Linear(ABC):
    """A linear map A of images, x [..., H, W, C] → [..., h, w, c], from little more than its call.

    A subclass is a pytree with `__call__` and, where a measurement's shape does not give the
    image's, `shape` or `input_shape`; the adjoint comes from JAX's transpose, `solve` and
    `pinv` from conjugate gradients. Operators with closed forms override them. `shape` is the
    (H, W) of the images where the operator knows it, and None where it takes any.

    `A @ B` is the map x → A(B(x)).

    Example:
        >>> import numpy as np, jaxdiff as jd
        >>> camera = jd.operators.Crop(4) @ jd.operators.Blur(np.ones((3, 3)) / 9, (16, 16))
        >>> camera(np.ones((16, 16, 3))).shape
        (8, 8, 3)
    """

    shape: Any = None  # a class attribute, no field

    @abstractmethod
    def __call__(self, x) -> jax.Array:
        """Ax."""

    def input_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """[..., H, W, C] of the images whose measurements have `shape`."""
        height, width = self.shape or shape[-3:-1]
        return (*shape[:-3], height, width, shape[-1])

    def adjoint(self, y) -> jax.Array:
        """Aᵀy: ⟨Ax, y⟩ = ⟨x, Aᵀy⟩."""
        y = jnp.asarray(y)
        image = jax.ShapeDtypeStruct(self.input_shape(y.shape), y.dtype)
        (x,) = jax.linear_transpose(self.__call__, image)(y)
        return x

    def solve(self, residual, r2, s2) -> jax.Array:
        """Aᵀ(r²AAᵀ + s²I)⁻¹ residual, s² > 0, of one measurement."""
        return self._solve_by_cg(residual, r2, s2)[0]

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

    def project(self, y) -> jax.Array:
        """A measurement without what no image can produce, as far as that is plain to see."""
        return y

    def pinv(self, y) -> jax.Array:
        """A⁺y of one measurement, by conjugate gradients on AᵀA x = Aᵀy from x = 0."""
        return conjugate_gradients(lambda x: self.adjoint(self(x)), self.adjoint(y))[0]

    def __matmul__(self, inner) -> "Compose":
        """The map x → self(inner(x))."""
        return Compose(self, inner)


@pytree
class Compose(Linear):
    """The map x → outer(inner(x)), written `outer @ inner`.

    Raises:
        TypeError: where one of the two is not an operator of this package.
    """

    outer: Any
    inner: Any

    def __post_init__(self):
        for operator in (self.outer, self.inner):
            if not isinstance(operator, Linear):
                raise TypeError(f"A @ B: expected two operators, got {type(operator).__name__}")

    @property
    def shape(self) -> tuple[int, int] | None:
        """(H, W) of the images: the inner operator's."""
        return self.inner.shape

    def input_shape(self, shape):
        return self.inner.input_shape(self.outer.input_shape(shape))

    def __call__(self, x):
        return self.outer(self.inner(x))

    def project(self, y):
        return self.outer.project(y)

    def adjoint(self, y):
        return self.inner.adjoint(self.outer.adjoint(y))
