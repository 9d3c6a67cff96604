"""An operator of its own for each measurement of a batch."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxdiff.operators.base import Operator, as_operator
from jaxdiff.util.pytree import pytree, static


@pytree
class Stack:
    """B operators of one kind and size as one: image b of a batch [B, H, W, C] goes to operator b.

    With it a sampler restores a batch of measurements y [B, ...], each blurred in its own way, in
    one compiled program.

    Args:
        operators: a sequence of operators whose arrays have the same shapes (two `Blur`s of one
            image size have, whatever the sizes of their kernels).

    Raises:
        ValueError: for none, or for operators that differ in kind or size.

    Example:
        >>> import numpy as np, jaxdiff as jd
        >>> blurs = Stack([jd.operators.Blur(np.ones((k, k)) / k**2, (8, 8)) for k in (3, 4)])
        >>> blurs(np.ones((2, 8, 8, 3))).shape
        (2, 8, 8, 3)
    """

    operators: Any  # after construction one operator with a leading axis on every array
    count: int | None = static(default=None)  # of them; filled in

    def __post_init__(self):
        if self.count is not None:  # stacked already
            return None
        operators: Sequence[Operator] = [as_operator(o) for o in self.operators]
        structures = {(type(o), jax.tree.structure(o), _shapes(o)) for o in operators}
        if len(structures) != 1:
            raise ValueError(
                "operators: expected operators of one kind and size, got "
                + (", ".join(sorted({type(o).__name__ for o in operators})) or "none")
            )
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *operators)
        return {"operators": stacked, "count": len(operators)}

    def __len__(self) -> int:
        assert self.count is not None
        return self.count

    def __getitem__(self, index) -> Operator:
        """The operator of one measurement."""
        return jax.tree.map(lambda leaf: leaf[index], self.operators)

    @property
    def shape(self) -> tuple[int, int] | None:
        """(H, W) of the images, where the operators know it."""
        return self[0].shape

    def __call__(self, x) -> jax.Array:
        """A_b x_b of images [B, H, W, C]."""
        return _each(lambda operator, x: operator(x), self, x)

    def project(self, y) -> jax.Array:
        """A_bA_b⁺y_b: measurements without what no image can produce."""
        return _each(lambda operator, y: operator.project(y), self, y)


def as_operators(operator) -> "Operator | Stack":
    """A stack as it is, and otherwise one operator (see `as_operator`)."""
    return operator if isinstance(operator, Stack) else as_operator(operator)


def _each(call, stack: Stack, x):
    """Also of operators without arrays, of which there is nothing to map over."""
    if not jax.tree.leaves(stack.operators):
        return jax.vmap(lambda x: call(stack.operators, x))(jnp.asarray(x))
    return jax.vmap(call)(stack.operators, jnp.asarray(x))


def _shapes(operator):
    return tuple(jnp.shape(leaf) for leaf in jax.tree.leaves(operator))
