"""DAPS: decoupled annealing posterior sampling."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.noise import Gaussian
from jaxdiff.observation import Observation
from jaxdiff.samplers.base import Draws, PosteriorSampler, as_count, as_scale, move
from jaxdiff.samplers.inner import CHAINS, descend
from jaxdiff.schedules import Steps
from jaxdiff.schedules.exploding import between
from jaxdiff.util.arrays import Number
from jaxdiff.util.pytree import field, pytree, static

START, END = 100, 0.1  # σ/α of the first level and of the last


@pytree
class DAPS(PosteriorSampler):
    """Posterior samples of any operator and noise, levels apart from each other, and no gradient.

    x̂₀ is where `inner` steps of the probability flow lead from x_t; x₀ is moved from there by `count`
    x₀ += η_t·∇[log p(y | x₀) − ‖x₀ − x̂₀‖²/2r_t²] + √(2η_t)·z, r_t = σ_t/α_t; x_s = α_s·x₀ + σ_s·z.
    `inner` evaluations a step; 200 steps are usual.

    Args:
        denoiser, operator, y, sigma: as of `PosteriorSampler`.
        moves: "langevin", or "hmc": Hamiltonian dynamics, damped and with a momentum of 0.9.
        eta: η of the first level; it falls to a hundredth, in proportion to the level's place.
        count: moves of each level.
        tau: takes the place of a Gaussian noise's sigma; None has the noise's own.
        inner: Euler steps of the probability flow from each level.

    Raises:
        ValueError: for a y that does not fit the operator, unknown moves, numbers out of range.

    Source: Zhang et al. 2024 (arXiv 2407.01521), algorithm 1. The official code takes
    exp(−‖y − Ax‖²/τ²) in [-1, 1], τ = 0.01, for every noise: 0.0035 here, and draws that fit y
    more closely than its noise lets them; its η is 1e-5 to 1e-4 by task, its HMC is not adjusted.

    Example:
        >>> import jax, numpy as np, jaxdiff as jd
        >>> prior = jd.priors.Gaussian(np.full((8, 8), 0.1), jd.Schedule.from_config())
        >>> sampler = DAPS(prior, lambda x: x**2, np.full((8, 8, 1), 0.2), sigma=0.05)
        >>> jd.sample(sampler, sampler.steps(3), key=jax.random.key(0)).shape
        (1, 8, 8, 1)
    """

    moves: str = static(default="langevin")
    eta: Number = field(default=5e-5, converter=as_scale("eta"))
    count: int = field(default=100, static=True, converter=as_count("count"))
    tau: Number | None = field(default=0.0035, converter=as_scale("tau", optional=True))
    inner: int = field(default=5, static=True, converter=as_count("inner"))

    def __post_init__(self):
        super().__post_init__()
        if self.moves not in CHAINS:
            raise ValueError(f"moves: expected 'langevin' or 'hmc', got {self.moves!r}")
        self.check_likelihood(self.sigma if self.tau is None else self.tau)

    def steps(self, count):
        """Levels whose (σ/α)^(1/7) is evenly spaced, from 100 to 0.1, as in the official code."""
        levels = between(START, END, np.linspace(0, 1, as_count("steps")(count)), rho=7)
        schedule = self.denoiser.schedule
        return schedule.steps(schedule.nearest(levels), inner=self.inner)

    def step(self, x, c: Steps, draws: Draws):
        x0_hat, deviation = descend(self.denoiser, x, c.inner), c.now.sigma / c.now.alpha
        seen = self.observation
        if self.tau is not None and isinstance(self.noise, Gaussian):
            seen = Observation(seen.operator, seen.y, Gaussian(self.tau))
        place = (START ** (1 / 7) - deviation ** (1 / 7)) / (START ** (1 / 7) - END ** (1 / 7))
        eta = jnp.asarray(self.eta, x.dtype) * (1 - 0.99 * jnp.clip(place, 0, 1))

        def score(x0):
            return jax.grad(seen.log_prob)(x0) + (x0_hat - x0) / deviation**2

        x0 = CHAINS[self.moves](score, x0_hat, eta, self.count, draws.require_key())
        info = {"t": c.t, "x0_hat": x0_hat, "residual": jnp.linalg.norm(seen.residual(x0))}
        return move(x, c, x0, draws.z, 1), info
