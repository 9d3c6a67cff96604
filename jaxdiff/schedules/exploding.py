"""What the schedules that leave the signal as it is share: x_t = x₀ + σ·ε."""

import dataclasses
import math
from abc import abstractmethod
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.schedules import fields
from jaxdiff.schedules.base import Level, Schedule, check_count
from jaxdiff.util import limits

SPACINGS = ("karras", "exponential")


def between(first, last, ramp, rho: float = 0.0):
    """From `first` to `last` as a ramp goes from 0 to 1: evenly in σ^(1/ρ), for ρ = 0 in ln σ.

    Source: Karras et al. 2022 (arXiv 2206.00364), equation 5.
    """
    if not rho:
        return np.exp(np.log(first) + ramp * (np.log(last) - np.log(first)))
    first, last = first ** (1 / rho), last ** (1 / rho)
    return (first + ramp * (last - first)) ** rho


class Exploding(Schedule):
    """x_t = x₀ + σ·ε for σ from `config.sigma_max` down to `config.sigma_min`.

    A subclass has a `config` and how a network is told of σ: `time` and its inverse, `sigma`.
    """

    config: Any
    spacing: ClassVar[str] = "karras"

    def to_config(self) -> dict[str, Any]:
        """The dictionary that `scheduler_config.json` holds."""
        return {"_class_name": self.scheduler} | dataclasses.asdict(self.config)

    scheduler: ClassVar[str]

    @abstractmethod
    def time(self, sigma: Any) -> Any:
        """What a network is told at σ."""

    @abstractmethod
    def sigma(self, t: Any) -> Any:
        """σ at the time t."""

    @property
    def num_train_timesteps(self) -> int:
        """How many times there were in training, or stand for all of them."""
        return self.config.num_train_timesteps

    def level(self, t) -> Level:
        """(t, 1, σ): of numpy's numbers in float64, of JAX's in JAX's dtype."""
        sigma = self.sigma(t if isinstance(t, jax.Array) else np.asarray(t, np.float64))
        return Level(t, (jnp if isinstance(sigma, jax.Array) else np).ones_like(sigma), sigma)

    def times(self, count: int, spacing: str | None = None, start=None) -> np.ndarray:
        """T times from σ_max, or from that of `start`, to σ_min.

        Raises:
            TypeError: for a count that is no integer; ValueError: for one below 1, or an unknown
                spacing: "karras" (evenly in σ^(1/ρ)) and "exponential" (evenly in ln σ) are known.
        """
        first = self.config.sigma_max if start is None else float(self.sigma(start))
        return self.time(self._spaced(first, self._ramp(count), spacing))

    def _ramp(self, count: int) -> np.ndarray:
        check_count(count)
        return np.linspace(0, 1, count)

    def _spaced(self, first, ramp, spacing: str | None = None):
        spacing = spacing or self.spacing
        if spacing not in SPACINGS:
            raise ValueError(f"spacing: expected one of {', '.join(SPACINGS)}, got {spacing!r}")
        rho = getattr(self.config, "rho", 7.0) if spacing == "karras" else 0.0
        return between(first, self.config.sigma_min, ramp, rho)

    def _ladder(self, times, count):
        sigma = np.asarray(self.sigma(times))
        return self.time(self._spaced(sigma[..., None], np.linspace(0, 1, count)))


def check_sigmas(config: Any, **kinds: Any) -> None:
    """Check a config with `num_train_timesteps`, `sigma_min` and `sigma_max`, and what else it names.

    Raises:
        ValueError: names the field at fault.
    """
    sigmas = dict.fromkeys(("sigma_min", "sigma_max"), (1e-8, 1e6))
    numbers = kinds.pop("numbers", {}) | sigmas
    fields.check(config, integers={"num_train_timesteps": (0, math.inf)}, numbers=numbers, **kinds)
    limits.check("num_train_timesteps", config.num_train_timesteps, "TIMESTEPS")
    if config.sigma_min >= config.sigma_max:
        fields.fail("sigma_min", f"less than sigma_max = {config.sigma_max:g}", config.sigma_min)
