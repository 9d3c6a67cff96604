"""The schedule of NCSN++: diffusers' ScoreSdeVeScheduler."""

import math
from typing import Any, ClassVar

from jaxdiff.schedules import fields
from jaxdiff.schedules.base import Level, Scalings
from jaxdiff.schedules.exploding import Exploding, check_sigmas
from jaxdiff.util.pytree import frozen, pytree, static


@frozen
class VEConfig:
    """The fields of diffusers' ScoreSdeVeScheduler, with its names and its defaults."""

    num_train_timesteps: int = 2000
    snr: float = 0.15
    sigma_min: float = 0.01
    sigma_max: float = 1348.0
    sampling_eps: float = 1e-5
    correct_steps: int = 1

    def __post_init__(self):
        numbers = {"snr": (0, math.inf), "sampling_eps": (0, 1)}
        check_sigmas(self, numbers=numbers)


@pytree
class VESchedule(Exploding, schedulers=("ScoreSdeVeScheduler",)):
    """x_t = x₀ + σ·ε at σ from σ_max to σ_min, evenly in ln σ; a network is told σ, and its images
    lie in [0, 1].

    The network's output is the score: x̂₀ = x + σ²·f, ε̂ = −σ·f. (Score networks give −ε̂, which
    diffusers' UNet2DModel divides by σ itself.) `snr` and `correct_steps` are of diffusers' corrector.

    Source: Song et al. 2021 (arXiv 2011.13456), the VE SDE; diffusers' ScoreSdeVeScheduler, whose times
    go down to `sampling_eps` and not to 0: here σ goes to σ_min.

    Example:
        >>> VESchedule(VEConfig(sigma_min=0.01, sigma_max=100.0)).steps(5).now.sigma.round(3).tolist()
        [100.0, 10.0, 1.0, 0.1, 0.01]
    """

    config: VEConfig = static(default=VEConfig())
    scheduler: ClassVar[str] = "ScoreSdeVeScheduler"
    states: ClassVar[tuple[float, float]] = (0.0, 1.0)
    spacing: ClassVar[str] = "exponential"

    @classmethod
    def _from_config(cls, config: dict[str, Any]) -> "VESchedule":
        return cls(fields.build(VEConfig, config))

    def time(self, sigma):
        """σ."""
        return sigma

    def sigma(self, t):
        """σ."""
        return t

    def scalings(self, at: Level) -> Scalings:
        """x̂₀ = x + σ²·f."""
        return Scalings(1, at.t, 1, at.sigma**2, 1, (0, -at.sigma))
