"""TMPD: Tweedie moment projected diffusion."""

import jax.numpy as jnp

from jaxdiff.observation import SIGMA_ZERO
from jaxdiff.samplers.base import Draws, PosteriorSampler, move
from jaxdiff.samplers.jacobian import with_covariance
from jaxdiff.schedules import Steps
from jaxdiff.util.pytree import pytree


@pytree
class TMPD(PosteriorSampler):
    """Posterior samples given y = Ax + σ·noise, by the rows of the network's own covariance of x₀.

    x₀ = x̂₀ + ΣAᵀ(diag|AΣAᵀ1| + σ²I)⁻¹(y − A x̂₀) with Σ = σ_t²/α_t·(∂x̂₀/∂x_t)ᵀ, then `move` to it
    as in DDPM. One evaluation a step and two gradients through it; 100 steps are usual. σ = 0
    counts as 1e-8.

    Args:
        denoiser, y, sigma: as of `PosteriorSampler`, the noise Gaussian.
        operator: a linear A of `jd.operators`.

    Raises:
        ValueError: for a y that does not fit the operator, a negative sigma, an operator that is
            not linear; TypeError: for no `jd.operators.Linear`.

    Source: Boys et al. 2023 (arXiv 2310.06721), with the sums of rows in place of the diagonal of
    AΣAᵀ, as it does for images. A network's row may sum to less than 0, where we take its size: the
    paper's sum of it and σ² may be 0.

    Example:
        >>> import jax, numpy as np, jaxdiff as jd
        >>> prior = jd.priors.Gaussian(np.full((8, 8), 0.1), jd.Schedule.from_config())
        >>> blur = jd.operators.Blur(np.ones((3, 3)) / 9, (8, 8))
        >>> sampler = TMPD(prior, blur, np.full((8, 8, 1), 0.5), sigma=10 / 255)
        >>> jd.sample(sampler, sampler.steps(2), key=jax.random.key(0)).shape
        (1, 8, 8, 1)
    """

    requires_linear = True

    def step(self, x, c: Steps, draws: Draws):
        p, covariance = with_covariance(self.denoiser, x, c.now)
        a, residual = self.observation.operator.linear, self.observation.residual(p.x0_hat)
        s2 = jnp.maximum(jnp.asarray(self.observation.sigma, x.dtype), SIGMA_ZERO) ** 2
        rows = a(covariance(a.adjoint(jnp.ones_like(residual))))
        x0 = p.x0_hat + covariance(a.adjoint(residual / (jnp.abs(rows) + s2)))
        info = {"t": c.t, "x0_hat": p.x0_hat, "residual": jnp.linalg.norm(residual)}
        return move(x, c, x0, draws.z), info
