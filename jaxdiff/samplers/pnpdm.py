"""PnP-DM: plug-and-play diffusion by split Gibbs sampling."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.samplers.base import Draws, PosteriorSampler, as_count, as_scale
from jaxdiff.samplers.inner import descend, langevin
from jaxdiff.schedules import Steps
from jaxdiff.util.arrays import Number
from jaxdiff.util.pytree import field, pytree


@pytree
class PnPDM(PosteriorSampler):
    """Posterior samples of any operator and noise, by turns from the likelihood and the prior.

    z ~ p(y | z)·N(z; x, ρ²I), then x ~ p(x)·N(x; z, ρ²I): `inner` steps of DDPM from x_t = α_t·z at
    the level σ_t/α_t = ρ. The first is exact for a linear operator and Gaussian noise, and otherwise
    `count` Langevin moves z += γ∇[log p(y | z) − ‖z − x‖²/2ρ²] + √(2γ)·n. `inner` evaluations a step,
    no gradient; 100 steps are usual.

    Args:
        denoiser, operator, y, sigma: as of `PosteriorSampler`.
        rho, rho_decay_rate, rho_min: ρ_i = max(rho·rho_decay_rate^i, rho_min) of step i, in states'
            units; ρ where x and z meet is noise that the posterior has too much of.
        inner: steps of the prior's draw.
        count, gamma: Langevin moves and γ, where they are needed.

    Raises:
        ValueError: for a y that does not fit the operator, numbers out of range.

    Source: Wu et al. 2024 (arXiv 2405.18782), algorithm 1. The official code denoises along EDM's
    levels below ρ; its configuration has ρ = 0.1 for all steps, its commands the ρ_i above.

    Example:
        >>> import jax, numpy as np, jaxdiff as jd
        >>> prior = jd.priors.Gaussian(np.full((8, 8), 0.1), jd.Schedule.from_config())
        >>> blur = jd.operators.Blur(np.ones((3, 3)) / 9, (8, 8))
        >>> sampler = PnPDM(prior, blur, np.full((8, 8, 1), 0.5), sigma=10 / 255)
        >>> jd.sample(sampler, sampler.steps(2), key=jax.random.key(0)).shape
        (1, 8, 8, 1)
    """

    rho: Number = field(default=10.0, converter=as_scale("rho"))
    rho_decay_rate: Number = field(default=0.9, converter=as_scale("rho_decay_rate", 1))
    rho_min: Number = field(default=0.3, converter=as_scale("rho_min"))
    inner: int = field(default=20, static=True, converter=as_count("inner"))
    count: int = field(default=100, static=True, converter=as_count("count"))
    gamma: Number = field(default=1e-4, converter=as_scale("gamma"))

    def __post_init__(self):
        super().__post_init__()
        if not self.conjugate:
            self.check_likelihood(self.sigma)

    def steps(self, count):
        """At the levels ρ_i."""
        decay = self.rho_decay_rate ** np.arange(as_count("steps")(count))
        schedule, rho = self.denoiser.schedule, np.maximum(self.rho * decay, self.rho_min)
        return schedule.steps(schedule.nearest(rho), inner=self.inner)

    def step(self, x, c: Steps, draws: Draws):
        first, second = jax.random.split(draws.require_key())
        seen, rho, report = self.observation, c.now.sigma / c.now.alpha, {}

        def score(z):
            return jax.grad(seen.log_prob)(z) + (x - z) / rho**2

        if self.conjugate:
            z, report = seen.draw(first, x, rho**2)
        else:
            z = langevin(score, x, jnp.asarray(self.gamma, x.dtype), self.count, first)
        x = descend(self.denoiser, c.now.alpha * z, c.inner, second)
        info = {"t": c.t, "x0_hat": x, "residual": jnp.linalg.norm(seen.residual(x))}
        return x, info | report
