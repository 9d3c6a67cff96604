"""TDS: the twisted diffusion sampler, a sequential Monte Carlo method."""

import jax.numpy as jnp

from jaxdiff.samplers.base import Draws, PosteriorSampler, as_count
from jaxdiff.samplers.inner import systematic
from jaxdiff.samplers.jacobian import with_covariance
from jaxdiff.schedules import Steps
from jaxdiff.util.platform import map_samples
from jaxdiff.util.pytree import field, pytree


@pytree
class TDS(PosteriorSampler):
    """Posterior samples given y = Ax + σ·noise that are exact as particles grow.

    Of `particles` x_t those are drawn again that the twist log p̃(y | x_t) = −½rᵀ(r_t²AAᵀ + σ²I)⁻¹r likes,
    r = y − A x̂₀, r_t² = σ_t²/(α_t² + σ_t²), and 0 at the last level. Each is moved as DDPM moves to
    x̂₀ + (σ_t²/α_t)∇log p̃, and weighs p(x_s | x_t)·p̃(y | x_s)/[q(x_s | x_t, y)·p̃(y | x_t)]. The first
    is the sample. `particles` evaluations a step, each with a gradient; 100 steps are usual.

    Args:
        denoiser, y, sigma: as of `PosteriorSampler`, the noise Gaussian and σ > 0.
        operator: a linear A of `jd.operators`.
        particles: P ≥ 1, the leading axis of a sample's noise.

    Raises:
        ValueError, TypeError: for a y, a sigma, particles or an operator other than these.

    Source: Wu et al. 2023 (arXiv 2306.17775), algorithm 1, with ΠGDM's likelihood for its twist and
    systematic resampling in every step. What it is exact for is DDPM's chain of these steps.

    Example:
        >>> import jax, numpy as np, jaxdiff as jd
        >>> prior = jd.priors.Gaussian(np.full((8, 8), 0.1), jd.Schedule.from_config())
        >>> blur = jd.operators.Blur(np.ones((3, 3)) / 9, (8, 8))
        >>> sampler = TDS(prior, blur, np.full((8, 8, 1), 0.5), sigma=10 / 255)
        >>> jd.sample(sampler, sampler.steps(2), key=jax.random.key(0)).shape
        (1, 8, 8, 1)
    """

    particles: int = field(default=16, static=True, converter=as_count("particles"))
    requires_linear = True
    evaluations = property(lambda self: self.particles)

    @property
    def shape(self):
        return self.particles, *self.denoiser.decode.input_shape(self._image_shape)

    def __post_init__(self):
        super().__post_init__()
        self.check_likelihood(self.sigma)

    def begin(self, x):
        return x, jnp.zeros(self.particles, x.dtype)

    def result(self, state):
        return state[0][0]

    def _twisted(self, c: Steps, x):
        """x̂₀, (σ_t²/α_t)∇log p̃ and log p̃ of one particle."""
        p, times_covariance = with_covariance(self.denoiser, x, c.now)
        seen, residual = self.observation, self.observation.residual(p.x0_hat)
        r2 = jnp.where(c.next.sigma > 0, c.now.noise, 0)
        d, _ = seen.solve(residual, r2)
        weighed = residual - r2 * seen.operator.linear(d)  # σ²(r_t²AAᵀ + σ²I)⁻¹ of it
        log_twist = -jnp.vdot(residual, weighed) / (2 * jnp.asarray(seen.sigma, x.dtype) ** 2)
        return p.x0_hat, times_covariance(d), log_twist

    def step(self, x, c: Steps, draws: Draws):
        (x, lacking), last = x, c.next.sigma == 0
        found = map_samples(lambda x: self._twisted(c, x))(x)
        chosen = systematic(draws.require_key(), lacking + found[-1])
        x, x0_hat, shift, log_twist = (a[chosen] for a in (x, *found))
        shift = jnp.where(last, 0, c.x0_coef * shift)
        moved = c.x0_coef * x0_hat + c.xt_coef * x + shift + c.noise_coef * draws.z
        shift = (shift / jnp.where(last, 1, c.noise_coef)).reshape(len(x), -1)
        lacking = -jnp.sum(shift * (draws.z.reshape(shift.shape) + shift / 2), -1) - log_twist
        residual = jnp.linalg.norm(self.observation.residual(x0_hat[0]))
        return (moved, lacking), {"t": c.t, "x0_hat": x0_hat[0], "residual": residual}
