"""Conjugate gradients: to a tolerance, saying how they ended, or a few steps of them."""

import jax
import jax.numpy as jnp


def conjugate_gradients(
    matvec, b, precondition=None, max_steps: int = 300, tolerance: float = 1e-5, start=None
):
    """u with matvec(u) = b, for a symmetric positive matvec, and a report.

    `precondition` is about the inverse of matvec, symmetric and positive too; `start` about u.
    Stops where ‖matvec(u) − b‖ is `tolerance` of ‖b‖ (1e-11 in float64), or after `max_steps`. A loop of
    our own: `jax.scipy.sparse.linalg.cg` does not say how many iterations it took, and lineax's
    stops by each element relative to b's, which are 0 at the pixels that a mask hides.

    Returns:
        u and `{"cg_iterations", "cg_residual", "cg_converged"}`; cg_residual is
        ‖matvec(u) − b‖/‖b‖, computed from u.
    """
    precondition = precondition or (lambda r: r)
    tolerance = tolerance if jnp.finfo(b.dtype).bits == 32 else 1e-11
    size = jnp.linalg.norm(b)

    def unfinished(state):
        _, r, _, _, i = state
        return (jnp.linalg.norm(r) > tolerance * size) & (i < max_steps)

    def iterate(state):
        u, r, p, gamma, i = state
        ap = matvec(p)
        alpha = gamma / jnp.vdot(p, ap).real
        u, r = u + alpha * p, r - alpha * ap
        z = precondition(r)
        new = jnp.vdot(r, z).real
        return u, r, z + new / gamma * p, new, i + 1

    u = jnp.zeros_like(b) if start is None else start
    r = b if start is None else b - matvec(u)
    z = precondition(r)
    state = (u, r, z, jnp.vdot(r, z).real, jnp.int32(0))
    u, _, _, _, iterations = jax.lax.while_loop(unfinished, iterate, state)
    residual = jnp.linalg.norm(matvec(u) - b) / jnp.where(size > 0, size, 1)
    report = {
        "cg_iterations": iterations,
        "cg_residual": residual,
        "cg_converged": residual <= 10 * tolerance,
    }
    return u, report


def few_iterations(matvec, b, count: int):
    """About u with matvec(u) = b: `count` conjugate gradients from 0, each one matvec and no more.

    For a matvec that costs a gradient through a network. Once b is met nothing moves.
    """

    def iterate(_, state):
        u, r, p, gamma = state
        ap = matvec(p)
        alpha = _ratio(gamma, jnp.vdot(p, ap))
        u, r = u + alpha * p, r - alpha * ap
        new = jnp.vdot(r, r)
        return u, r, r + _ratio(new, gamma) * p, new

    return jax.lax.fori_loop(0, count, iterate, (jnp.zeros_like(b), b, b, jnp.vdot(b, b)))[0]


def _ratio(a, b):
    """a/b, and 0 where b is."""
    return jnp.where(b == 0, 0, a / jnp.where(b == 0, 1, b))
