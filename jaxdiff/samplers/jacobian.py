"""The network's own covariance of x₀, for a mean that follows the image."""

import jax
import jax.numpy as jnp

from jaxdiff.denoiser import predict
from jaxdiff.schedules.ddpm import Steps

# The ᾱ between which it is used. Below, (1 − ᾱ)/√ᾱ multiplies the Jacobian's errors: from 0.05 on, the mean of
# nine draws of faces64 (10 steps) loses 1.6 dB. Above there is nothing left to mend: the figures are the same.
FROM, TO = 0.6, 0.99


def used(alphas_cumprod):
    """Whether a step at ᾱ takes a gradient."""
    return (alphas_cumprod > FROM) & (alphas_cumprod < TO)


def with_covariance(denoiser, x, c: Steps):
    """The prediction at x_t, and v → Sv with S = (1 − ᾱ)/√ᾱ·(∂x̂₀/∂x_t)ᵀ.

    S = Cov[x₀ | x_t] where x̂₀ is the posterior mean (Tweedie's second formula), and then
    symmetric; a network's is so about.
    """

    def x0_hat(x):
        p = predict(denoiser, x, c)
        return p.x0_hat, p

    _, pullback, p = jax.vjp(x0_hat, x, has_aux=True)
    scale = (1 - c.alphas_cumprod) / jnp.sqrt(c.alphas_cumprod)
    return p, lambda v: scale * pullback(v)[0]


def correction(times_covariance, covariance, system, residual, c: Steps):
    """What the conditioned mean of x₀ changes by where S takes the place of the table's Σ, and

    whether the solves reached their tolerance.

    The table's mean is x̂₀ + ΣBᵀu, u = (BΣBᵀ + σ²I)⁻¹(y − A x̂₀). With d = (S − Σ)Bᵀu it becomes
    x̂₀ + ΣBᵀu + d − ΣBᵀ(BΣBᵀ + σ²I)⁻¹B d: S moves what the measurement leaves open. That is S's own
    mean up to (S − Σ)², for one product with S.

    Source: Rozet et al. 2024 (MMPS, arXiv 2405.13712) condition with S by conjugate gradients from
    u = 0; to begin and end with the table, and to draw with it, is our own.
    """

    def corrected():
        u, first = system.solve(system.into(residual))
        v = system.bt(u)
        d = times_covariance(v) - covariance.apply(v)
        w, second = system.solve(system.b(d))
        return d - covariance.apply(system.bt(w)), first["cg_converged"] & second["cg_converged"]

    image = jax.eval_shape(lambda r: system.bt(system.into(r)), residual)
    unchanged = jnp.zeros_like(image), jnp.array(True)
    return jax.lax.cond(used(c.alphas_cumprod), corrected, lambda: unchanged)
