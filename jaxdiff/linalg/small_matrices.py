"""Small symmetric matrices, one a frequency, as elementwise arithmetic.

Unrolled over the channels: LAPACK is called a matrix at a time, which for thousands of small ones is
a good part of a step (benchmarks/choices.md).
"""

import jax.numpy as jnp


def cholesky(m):
    """L [..., C, C], lower triangular, with LLᵀ = m, for positive semidefinite m [..., C, C]."""
    size, (factor, _) = m.shape[-1], _factor(m)
    zero = jnp.zeros_like(m[..., 0, 0])
    rows = [
        jnp.stack([factor[i][j] if j <= i else zero for j in range(size)], -1) for i in range(size)
    ]
    return jnp.stack(rows, -2)


def solve(m, b):
    """m⁻¹ b for positive definite m [..., C, C] and b [..., C, K]."""
    size, (factor, inverse) = m.shape[-1], _factor(m)
    y, x = [], {}
    for i in range(size):
        rest = b[..., i, :] - sum(factor[i][k][..., None] * y[k] for k in range(i))
        y.append(rest * inverse[i][..., None])
    for i in reversed(range(size)):
        rest = y[i] - sum(factor[k][i][..., None] * x[k] for k in range(i + 1, size))
        x[i] = rest * inverse[i][..., None]
    return jnp.stack([x[i] for i in range(size)], -2)


def apply(m, v):
    """m v for m [..., C, C] and v [..., C]."""
    return jnp.sum(m * v[..., None, :], -1)


def _factor(m):
    """The rows of L, below and on the diagonal, and the reciprocals of its diagonal."""
    factor, inverse = [], []
    for i in range(m.shape[-1]):
        row = []
        for j in range(i):
            rest = m[..., i, j] - sum(row[k] * factor[j][k] for k in range(j))
            row.append(rest * inverse[j])
        pivot = m[..., i, i] - sum(entry**2 for entry in row)
        # Semidefinite up to rounding: what should be zero becomes zero, and not NaN.
        positive = pivot > 4 * jnp.finfo(m.dtype).eps * m[..., i, i]
        row.append(jnp.sqrt(jnp.where(positive, pivot, 0)))
        inverse.append(jnp.where(positive, 1 / jnp.where(positive, row[-1], 1), 0))
        factor.append(row)
    return factor, inverse
