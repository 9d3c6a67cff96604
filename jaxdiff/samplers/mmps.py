"""MMPS: moment matching posterior sampling."""

import jax.numpy as jnp

from jaxdiff.linalg.cg import few_iterations
from jaxdiff.observation import SIGMA_ZERO
from jaxdiff.samplers.base import Draws, PosteriorSampler, as_count, move
from jaxdiff.samplers.jacobian import with_covariance
from jaxdiff.schedules import Steps
from jaxdiff.util.pytree import field, pytree


@pytree
class MMPS(PosteriorSampler):
    """Posterior samples given y = Ax + σ·noise, by the network's own covariance of x₀.

    E[x₀ | x_t, y] ≈ x̂₀ + ΣAᵀ(AΣAᵀ + σ²I)⁻¹(y − A x̂₀) with Σ = σ_t²/α_t·(∂x̂₀/∂x_t)ᵀ, the inverse by
    conjugate gradients, then `move` to it as in DDPM. One evaluation a step and `iterations` + 1
    gradients through it; 100 steps are usual. σ = 0 counts as 1e-8.

    Args:
        denoiser, y, sigma: as of `PosteriorSampler`, the noise Gaussian.
        operator: a linear A of `jd.operators`.
        iterations: of conjugate gradients, ≥ 1.

    Raises:
        ValueError: for a y that does not fit the operator, a negative sigma, no iterations, an
            operator that is not linear; TypeError: for no `jd.operators.Linear`.

    Source: Rozet et al. 2024 (arXiv 2405.13712), moment matching. Their library azula takes GMRES by
    default, since a network's Jacobian is not quite symmetric.

    Example:
        >>> import jax, numpy as np, jaxdiff as jd
        >>> prior = jd.priors.Gaussian(np.full((8, 8), 0.1), jd.Schedule.from_config())
        >>> blur = jd.operators.Blur(np.ones((3, 3)) / 9, (8, 8))
        >>> sampler = MMPS(prior, blur, np.full((8, 8, 1), 0.5), sigma=10 / 255)
        >>> jd.sample(sampler, sampler.steps(2), key=jax.random.key(0)).shape
        (1, 8, 8, 1)
    """

    iterations: int = field(default=1, static=True, converter=as_count("iterations"))
    requires_linear = True

    def step(self, x, c: Steps, draws: Draws):
        p, covariance = with_covariance(self.denoiser, x, c.now)
        a, residual = self.observation.operator.linear, self.observation.residual(p.x0_hat)
        s2 = jnp.maximum(jnp.asarray(self.observation.sigma, x.dtype), SIGMA_ZERO) ** 2

        def system(u):
            return a(covariance(a.adjoint(u))) + s2 * u

        x0 = p.x0_hat + covariance(a.adjoint(few_iterations(system, residual, self.iterations)))
        info = {"t": c.t, "x0_hat": p.x0_hat, "residual": jnp.linalg.norm(residual)}
        return move(x, c, x0, draws.z), info
