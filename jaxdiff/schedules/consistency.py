"""The schedule of consistency models: diffusers' CMStochasticIterativeScheduler."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.schedules import fields
from jaxdiff.schedules.base import Level, Scalings, check_count
from jaxdiff.schedules.exploding import Exploding, check_sigmas
from jaxdiff.util.pytree import frozen, pytree, static


@frozen
class ConsistencyConfig:
    """The fields of diffusers' CMStochasticIterativeScheduler, with its names and its defaults."""

    num_train_timesteps: int = 40
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    sigma_data: float = 0.5
    s_noise: float = 1.0
    rho: float = 7.0
    clip_denoised: bool = True

    def __post_init__(self):
        numbers = {"sigma_data": (0, 1e6), "s_noise": (0, 1e3), "rho": (0.1, 1e3)}
        check_sigmas(self, numbers=numbers, switches=("clip_denoised",))


@pytree
class ConsistencySchedule(Exploding, schedulers=("CMStochasticIterativeScheduler",)):
    """x_t = x₀ + σ·ε at σ from σ_max to σ_min, evenly in σ^(1/ρ); a network is told 250 ln σ.

    x̂₀ = σ_d²/((σ − σ_min)² + σ_d²)·x + (σ − σ_min)·σ_d/√(σ² + σ_d²)·f(x/√(σ² + σ_d²), 250 ln σ),
    which at σ_min is x itself. It is an image of the prior more than a mean of images: of all
    samplers it suits those of few steps.

    Source: Song et al. 2023 (arXiv 2303.01469), appendix C; times as in diffusers' scheduler.

    Example:
        >>> ConsistencySchedule().steps(2).now.sigma.round(3).tolist()
        [80.0, 2.24]
    """

    config: ConsistencyConfig = static(default=ConsistencyConfig())
    scheduler: ClassVar[str] = "CMStochasticIterativeScheduler"

    @classmethod
    def _from_config(cls, config: dict[str, Any]) -> "ConsistencySchedule":
        return cls(fields.build(ConsistencyConfig, config))

    def time(self, sigma):
        """250 ln σ."""
        return 250 * np.log(sigma)

    def sigma(self, t):
        """σ = exp(t/250)."""
        return (jnp if isinstance(t, jax.Array) else np).exp(t / 250)

    def _ramp(self, count: int) -> np.ndarray:
        """Every ⌊N/T⌋-th of the N training steps."""
        n = self.num_train_timesteps
        check_count(count, n)
        return np.arange(count) * (n // count) / max(n - 1, 1)

    def scalings(self, at: Level) -> Scalings:
        """With the boundary at σ_min."""
        data, sigma, least = self.config.sigma_data, at.sigma, self.config.sigma_min
        into = (sigma**2 + data**2) ** -0.5
        total = (sigma - least) ** 2 + data**2
        skip, out = data**2 / total, (sigma - least) * data * into
        noise = ((sigma - least) ** 2 / (total * sigma), -out / sigma)
        return Scalings(into, at.t, skip, out, 1, noise)

    def bounded(self, x0):
        """Within [-1, 1], where the config says so."""
        return jnp.clip(x0, -1, 1) if self.config.clip_denoised else x0
