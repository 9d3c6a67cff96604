"""DiffPIR: plug-and-play restoration by half-quadratic splitting."""

import jax.numpy as jnp
import numpy as np

from jaxdiff.samplers.base import Draws, PosteriorSampler, as_count, as_scale, move
from jaxdiff.schedules import Steps
from jaxdiff.util.arrays import Number
from jaxdiff.util.pytree import field, pytree

LARGEST = 1e8  # of the prox's variance: where α = 0, as where λ = 0, nothing but y is known


@pytree
class DiffPIR(PosteriorSampler):
    """Restorations given y = Ax + σ·noise, by a proximal step on x̂₀ and no gradient.

    x₀ = argmin ‖y − Ax‖²/ρ_t + ‖x − x̂₀‖² with ρ_t = λσ²ᾱ_t/(1 − ᾱ_t), then
    x_s = α_s·x₀ + σ_s(√(1 − ζ)·ε_t + √ζ·z), ε_t = (x_t − α_t·x₀)/σ_t. One evaluation a step; 100
    steps are usual.

    Args:
        denoiser, y, sigma: as of `PosteriorSampler`, the noise Gaussian.
        operator: a linear A of `jd.operators`.
        lambda_: λ ≥ 0, the weight of x̂₀ against y.
        zeta: ζ from 0 to 1, the share of new noise.

    Raises:
        ValueError: for a y that does not fit the operator, a sigma, λ or ζ out of range, an
            operator that is not linear; TypeError: for no `jd.operators.Linear`.

    Source: Zhu et al. 2023 (arXiv 2305.08995), algorithm 1. The official code
    takes σ_t/α_t of states in [-1, 1] for a deviation of images in [0, 1], so that its λ counts a
    fourth of this one, begins from y, and leaves the last proximal step out.

    Example:
        >>> import jax, numpy as np, jaxdiff as jd
        >>> prior = jd.priors.Gaussian(np.full((8, 8), 0.1), jd.Schedule.from_config())
        >>> blur = jd.operators.Blur(np.ones((3, 3)) / 9, (8, 8))
        >>> sampler = DiffPIR(prior, blur, np.full((8, 8, 1), 0.5), sigma=10 / 255)
        >>> jd.sample(sampler, sampler.steps(2), key=jax.random.key(0)).shape
        (1, 8, 8, 1)
    """

    lambda_: Number = field(default=1.0, converter=as_scale("lambda_"))
    zeta: Number = field(default=0.1, converter=as_scale("zeta", 1))
    requires_linear = True

    def steps(self, count):
        """Spaced as the official code's: the more densely, the less noise there is."""
        times = self.denoiser.schedule.all_times()
        places = np.sqrt(np.linspace(0, 1, as_count("steps")(count))) * len(times)
        return self.denoiser.schedule.steps(times[np.minimum(places.astype(int), len(times) - 1)])

    def step(self, x, c: Steps, draws: Draws):
        p, observation = self.denoiser.predict(x, c.now), self.observation
        weight = jnp.asarray(self.lambda_, x.dtype) * c.now.signal
        variance = c.now.noise / jnp.maximum(weight, c.now.noise / LARGEST)
        x0, report = observation.prox(p.x0_hat, variance)
        info = {"t": c.t, "x0_hat": p.x0_hat, "residual": jnp.linalg.norm(observation.residual(x0))}
        return move(x, c, x0, draws.z, jnp.asarray(self.zeta, x.dtype)), info | report
