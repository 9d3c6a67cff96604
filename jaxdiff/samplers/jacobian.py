"""The network's own covariance of x₀, for a mean that follows the image."""

import jax
import jax.numpy as jnp

from jaxdiff.denoiser import predict
from jaxdiff.schedule import Steps

# ᾱ above which it is used. Below, (1 − ᾱ)/√ᾱ multiplies the Jacobian's errors: used from t = 999 on, the
# draws of faces64 have twice the spread they should have.
FROM = 0.3


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


def correction(times_covariance, covariance, system, residual, s2, c: Steps):
    """What the conditioned mean of x₀ changes by where S takes the place of the table's Σ, and

    whether the table's solves reached their tolerance.

    The mean is x̂₀ + SBᵀu with (BSBᵀ + σ²I)u = y − A x̂₀: u from one iteration of conjugate
    gradients, preconditioned by the table's (BΣBᵀ + σ²I)⁻¹, which also gives the u it starts from.

    Source: Rozet et al. 2024 (MMPS, arXiv 2405.13712) condition with S from u = 0 and without a
    preconditioner; the table's, and the draw with the table's Σ, are our own.
    """
    into = system.into(residual)

    def corrected():
        u, first = system.solve(into)
        moved = times_covariance(system.bt(u))
        missed = into - system.b(moved) - s2 * u
        direction, second = system.solve(missed)
        along = times_covariance(system.bt(direction))
        curvature = jnp.vdot(direction, system.b(along) + s2 * direction).real
        step = jnp.vdot(missed, direction).real / jnp.where(curvature > 0, curvature, jnp.inf)
        changed = moved + step * along - covariance.apply(system.bt(u))
        return changed, first["cg_converged"] & second["cg_converged"]

    image = jax.eval_shape(system.bt, into)
    unchanged = jnp.zeros_like(image), jnp.array(True)
    return jax.lax.cond(c.alphas_cumprod > FROM, corrected, lambda: unchanged)
