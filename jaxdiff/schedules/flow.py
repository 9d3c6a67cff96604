"""The schedule of flow matching: diffusers' FlowMatchEulerDiscreteScheduler."""

import dataclasses
import math
from typing import Any

import jax
import numpy as np

from jaxdiff.schedules import fields
from jaxdiff.schedules.base import Level, Scalings, Schedule, check_count
from jaxdiff.util import limits
from jaxdiff.util.pytree import frozen, pytree, static


@frozen
class FlowConfig:
    """The fields of diffusers' FlowMatchEulerDiscreteScheduler that say what the noise is and where
    its steps are, with its names and its defaults."""

    num_train_timesteps: int = 1000
    shift: float = 1.0

    def __post_init__(self):
        steps = {"num_train_timesteps": (0, math.inf)}
        fields.check(self, integers=steps, numbers={"shift": (0, 1e6)})
        limits.check("num_train_timesteps", self.num_train_timesteps, "TIMESTEPS")


@pytree
class FlowSchedule(Schedule, schedulers=("FlowMatchEulerDiscreteScheduler",)):
    """x_t = (1 − σ)·x₀ + σ·ε at σ from 1 to about 1/N; a network is told N·σ and gives ε − x₀.

    x̂₀ = x − σ·f, ε̂ = x + (1 − σ)·f. The steps are even in σ, then moved to where there is more
    noise by `shift`: σ ← shift·σ/(1 + (shift − 1)·σ). Other fields that say where a sampler steps are ignored.

    Source: Lipman et al. 2023 (arXiv 2210.02747), with t reversed; Esser et al. 2024 (arXiv 2403.03206),
    equation 23.

    Raises:
        ValueError: for a config at fault, by the field.

    Example:
        >>> FlowSchedule().steps(2).now.sigma.tolist()
        [1.0, 0.001]
    """

    config: FlowConfig = static(default=FlowConfig())

    @classmethod
    def _from_config(cls, config: dict[str, Any]) -> "FlowSchedule":
        if config.get("invert_sigmas", False) is not False:
            raise ValueError("invert_sigmas: expected false: σ = 1 is noise alone")
        return cls(fields.build(FlowConfig, config))

    def to_config(self) -> dict[str, Any]:
        """The dictionary that `scheduler_config.json` holds."""
        return {"_class_name": "FlowMatchEulerDiscreteScheduler"} | dataclasses.asdict(self.config)

    @property
    def num_train_timesteps(self) -> int:
        """N."""
        return self.config.num_train_timesteps

    def level(self, t) -> Level:
        """(t, 1 − σ, σ) with σ = t/N: of numpy's numbers in float64, of JAX's in JAX's dtype."""
        t = t if isinstance(t, jax.Array) else np.asarray(t, np.float64)
        sigma = t / self.num_train_timesteps
        return Level(t, 1 - sigma, sigma)

    def times(self, count: int, spacing: str | None = None, start=None) -> np.ndarray:
        """T times, descending, as diffusers' `set_timesteps` has them.

        Raises:
            TypeError: for a count that is no integer; ValueError: for one below 1, or a spacing.
        """
        check_count(count)
        if spacing is not None:
            raise ValueError(f"spacing: a flow has its own, by `shift`; got {spacing!r}")
        n, shift = self.num_train_timesteps, self.config.shift
        ends = np.array([n if start is None else start, self.shortest])
        first, last = _shifted(ends / n, 1 / shift)
        return n * _shifted(np.linspace(first, last, count), shift)

    @property
    def shortest(self) -> float:
        """The time next to the data: of σ = 1/N, shifted in two places as diffusers does."""
        n, shift = self.num_train_timesteps, self.config.shift
        return n * _shifted(_shifted(1 / n, shift), shift)

    def scalings(self, at: Level) -> Scalings:
        """x̂₀ = x − σ·f."""
        return Scalings(1, at.t, 1, -at.sigma, 1, (1, at.alpha))


def _shifted(sigma, shift):
    return shift * sigma / (1 + (shift - 1) * sigma)
