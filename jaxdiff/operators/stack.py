"""An operator of its own for each measurement of a batch."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxdiff.util.pytree import pytree


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

    def __post_init__(self):
        operators: Sequence[Any] = list(self.operators)
        structures = {(type(o), jax.tree.structure(o), _shapes(o)) for o in operators}
        if len(structures) != 1:
            raise ValueError(
                "operators: expected operators of one kind and size, got "
                + (", ".join(sorted({type(o).__name__ for o in operators})) or "none")
            )
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *operators)
        object.__setattr__(self, "operators", stacked)

    def __len__(self) -> int:
        return jax.tree.leaves(self.operators)[0].shape[0]

    def __getitem__(self, index):
        """The operator of one measurement."""
        return jax.tree.map(lambda leaf: leaf[index], self.operators)

    @property
    def shape(self) -> tuple[int, int] | None:
        """(H, W) of the images, where the operators know it."""
        return self.operators.shape

    def __call__(self, x) -> jax.Array:
        """A_b x_b of images [B, H, W, C]."""
        return jax.vmap(lambda operator, x: operator(x))(self.operators, x)

    def project(self, y) -> jax.Array:
        """A_bA_b⁺y_b: measurements without what no image can produce."""
        return jax.vmap(lambda operator, y: operator.project(y))(self.operators, y)


def _shapes(operator):
    return tuple(leaf.shape for leaf in jax.tree.leaves(operator))
