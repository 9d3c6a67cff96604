"""The schedule and the preconditioning of EDM: its pickles and diffusers' EDMEulerScheduler."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.schedules import fields
from jaxdiff.schedules.base import Level, Scalings
from jaxdiff.schedules.exploding import SPACINGS, Exploding, check_sigmas
from jaxdiff.util.pytree import frozen, pytree, static


@frozen
class EDMConfig:
    """The fields of diffusers' EDMEulerScheduler, with its names and its defaults."""

    num_train_timesteps: int = 1000
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    sigma_data: float = 0.5
    sigma_schedule: str = "karras"
    prediction_type: str = "epsilon"
    rho: float = 7.0

    def __post_init__(self):
        check_sigmas(
            self,
            numbers={"sigma_data": (0, 1e6), "rho": (0.1, 1e3)},
            choices={"sigma_schedule": SPACINGS, "prediction_type": ("epsilon", "v_prediction")},
        )


@pytree
class EDMSchedule(Exploding, schedulers=("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")):
    """x_t = x₀ + σ·ε at σ from σ_max to σ_min, evenly in σ^(1/ρ); a network is told ¼ ln σ.

    x̂₀ = σ_d²/(σ² + σ_d²)·x ± σσ_d/√(σ² + σ_d²)·f(x/√(σ² + σ_d²), ¼ ln σ), − where
    `prediction_type` is "v_prediction".

    Source: Karras et al. 2022 (arXiv 2206.00364), table 1.

    Example:
        >>> EDMSchedule().steps(3).now.sigma.round(3).tolist()
        [80.0, 2.515, 0.002]
    """

    config: EDMConfig = static(default=EDMConfig())
    scheduler: ClassVar[str] = "EDMEulerScheduler"

    @classmethod
    def _from_config(cls, config: dict[str, Any]) -> "EDMSchedule":
        return cls(fields.build(EDMConfig, config))

    @property
    def spacing(self) -> str:
        """As the config says."""
        return self.config.sigma_schedule

    def time(self, sigma):
        """¼ ln σ."""
        return np.log(sigma) / 4

    def sigma(self, t):
        """σ = exp(4t)."""
        return (jnp if isinstance(t, jax.Array) else np).exp(4 * t)

    def scalings(self, at: Level) -> Scalings:
        """c_in, c_noise, c_skip and c_out."""
        data, sigma = self.config.sigma_data, at.sigma
        sign = 1 if self.config.prediction_type == "epsilon" else -1
        total = sigma**2 + data**2
        into = total**-0.5
        noise = (sigma / total, -sign * data * into)
        return Scalings(into, at.t, data**2 / total, sign * sigma * data * into, 1, noise)
