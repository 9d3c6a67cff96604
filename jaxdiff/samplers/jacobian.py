"""The network's own covariance of x₀, for a mean that follows the image."""

import jax
import jax.numpy as jnp

from jaxdiff.schedules import Level, Steps

# The ᾱ between which it is used. Below, σ_t²/α_t multiplies the Jacobian's errors; above there is
# nothing left to mend (benchmarks/choices.md).
FROM, TO = 0.6, 0.99


def used(signal):
    """Whether a step at ᾱ takes a gradient."""
    return (signal > FROM) & (signal < TO)


def with_covariance(denoiser, x, at: Level):
    """The prediction at x_t, and v → Sv with S = σ_t²/α_t·(∂x̂₀/∂x_t)ᵀ; 0 where α_t is.

    S = Cov[x₀ | x_t] where x̂₀ is the posterior mean (Tweedie's second formula), and then
    symmetric; a network's is so about.
    """

    def x0_hat(x):
        p = denoiser.predict(x, at)
        return p.x0_hat, p

    _, pullback, p = jax.vjp(x0_hat, x, has_aux=True)
    known = at.alpha > 0
    scale = jnp.where(known, at.sigma**2 / jnp.where(known, at.alpha, 1), 0)
    return p, lambda v: scale * pullback(v)[0]


def correction(times_covariance, system, residual, c: Steps):
    """What the conditioned mean of x₀ changes by where S takes the place of the table's Σ.

    The second result says whether the solves reached their tolerance. The table's mean is
    x̂₀ + ΣBᵀu, u = (BΣBᵀ + σ²I)⁻¹(y − A x̂₀). With d = (S − Σ)Bᵀu it becomes
    x̂₀ + ΣBᵀu + d − ΣBᵀ(BΣBᵀ + σ²I)⁻¹B d: S moves what the measurement leaves open. That is S's own
    mean up to (S − Σ)², for one product with S.

    Source: Rozet et al. 2024 (MMPS, arXiv 2405.13712) condition with S by conjugate gradients from
    u = 0; to begin and end with the table, and to draw with it, is our own.
    """

    def corrected():
        u, first = system.solve(system.enter(residual))
        v = system.adjoint(u)
        d = times_covariance(v) - system.covariance.apply(v)
        w, second = system.solve(system.forward(d))
        converged = first["cg_converged"] & second["cg_converged"]
        return d - system.covariance.apply(system.adjoint(w)), converged

    image = jax.eval_shape(lambda r: system.adjoint(system.enter(r)), residual)
    unchanged = jnp.zeros_like(image), jnp.array(True)
    return jax.lax.cond(used(c.now.signal), corrected, lambda: unchanged)
