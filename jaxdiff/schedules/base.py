"""Noise levels, the steps between them, and what a schedule is."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.util.arrays import Array, Number
from jaxdiff.util.pytree import pytree


class Level(NamedTuple):
    """A noise level: x_t = alpha·x₀ + sigma·ε, at the time t that a network is told."""

    t: Number
    alpha: Number
    sigma: Number

    @classmethod
    def of(cls, at) -> "Level":
        """A level as it is, or the variance-preserving one of an ᾱ, at no time that is known."""
        return at if isinstance(at, Level) else cls(float("nan"), jnp.sqrt(at), jnp.sqrt(1 - at))

    @property
    def variance(self):
        """(σ/α)²: of x_t/α about x₀."""
        return (self.sigma / self.alpha) ** 2

    @property
    def signal(self):
        """α²/(α² + σ²): the ᾱ of the same signal-to-noise ratio, at any scaling."""
        return self.alpha**2 / (self.alpha**2 + self.sigma**2)

    @property
    def noise(self):
        """σ²/(α² + σ²) = 1 − `signal`, without its cancellation where there is little noise."""
        return self.sigma**2 / (self.alpha**2 + self.sigma**2)

    @property
    def norm(self):
        """√(α² + σ²), the deviation of x_t where x₀ has 1: 1 where variance is preserved."""
        return (np if isinstance(self.alpha, np.ndarray) else jnp).hypot(self.alpha, self.sigma)


class Scalings(NamedTuple):
    """How a network's output f(into·x, time) is read at one noise level.

    x̂₀ = gain·(skip·x + out·f), ε̂ = noise[0]·x + noise[1]·f. The gain stands outside, where it
    multiplies the difference of two large terms and not their rounding.
    """

    into: Number
    time: Number
    skip: Number
    out: Number
    gain: Number
    noise: tuple[Number, Number]


@pytree
class Steps:
    """The steps of a trajectory in sampling order, noisiest first: float64 arrays of length T.

    One row is what a sampler's `step` gets as `c`: it leads from the level `now` to the level
    `next`; the last `next` is (α, σ) = (1, 0). All coefficients are computed once, in float64, and
    cast last:

    - `fresh`: τ = 1 − (α_t σ_s/(α_s σ_t))², the share of new noise in q(x_s | x_t, x₀)
    - `x0_coef`, `xt_coef`, `noise_coef`: a draw of q(x_s | x_t, x₀) is
      x0_coef·x₀ + xt_coef·x_t + noise_coef·z, with α_s·τ, α_t σ_s²/(α_s σ_t²) and σ_s·√τ
    - `ancestral`: the deviation of the noise that the schedule itself wants there, such as √β of
      diffusers' fixed_large; `noise_coef` where it wants no other
    - `guidance`: √(α_t² + σ_t²)·√(α_s² + σ_s²), what a gradient with respect to x_t is multiplied
      by as a move of x_s: a method is then the same at every scaling, and 1 where variance is
      preserved
    - `inner`: None, or steps [T, K] from each level down to the data, where a method asks for them
    """

    now: Level
    next: Level
    fresh: Number
    x0_coef: Number
    xt_coef: Number
    noise_coef: Number
    ancestral: Number
    guidance: Number = 1.0
    inner: "Steps | None" = None

    def __len__(self) -> int:
        return np.shape(self.now.t)[0]

    @property
    def start(self):
        """The deviation of the first state, √(α² + σ²): 1 where variance is preserved."""
        return self.now.norm[0]

    @property
    def t(self):
        """The timesteps of `now`."""
        return self.now.t

    @property
    def timesteps(self):
        """diffusers' name for `t`."""
        return self.now.t

    @property
    def alphas_cumprod(self):
        """ᾱ_t."""
        return self.now.signal

    @property
    def alphas_cumprod_prev(self):
        """ᾱ of the next, less noisy level: 1 after the last step."""
        return self.next.signal

    @property
    def betas(self):
        """β = 1 − ᾱ_t/ᾱ_prev of the respaced schedule."""
        return self.fresh * self.now.noise

    @property
    def alphas(self):
        """α = ᾱ_t/ᾱ_prev = 1 − β."""
        return self.now.signal / self.next.signal

    @property
    def posterior_variance(self):
        """(1 − ᾱ_prev)/(1 − ᾱ_t)·β: of q(x_s | x_t, x₀), where variance is preserved."""
        return self.fresh * self.next.noise

    @property
    def sigma(self):
        """The deviation of a DDPM step's noise, 0 at the last step."""
        return self.ancestral

    def astype(self, dtype) -> "Steps":
        """The real-valued arrays in another dtype; an integer `t` stays one."""
        return jax.tree.map(
            lambda a: a.astype(dtype) if np.issubdtype(a.dtype, np.floating) else a, self
        )


class Schedule(ABC):
    """A noise schedule: which levels there are, and how a network's output is read at them.

    A subclass names the schedulers of diffusers that mean it, and has `level`, `times`,
    `scalings`, `to_config` and a `_from_config`; the table of steps is written here, once, for all of them.

    Example:
        >>> schedule = Schedule.from_config({"beta_schedule": "linear"})
        >>> schedule.steps(4).t
        array([750, 500, 250,   0])
    """

    families: ClassVar[dict[str, type["Schedule"]]] = {}
    states: ClassVar[tuple[float, float]] = (-1.0, 1.0)  # what black and white are to its networks

    def __init_subclass__(cls, schedulers: tuple[str, ...] = (), **kwargs):
        super().__init_subclass__(**kwargs)
        Schedule.families.update(dict.fromkeys(schedulers, cls))

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | None = None) -> Any:
        """The schedule of a `scheduler_config.json`, by its `_class_name`; DDPM's without one.

        Raises:
            ValueError: for a scheduler whose noise is not known here, and for a bad field, by name.
        """
        config = dict(config or {})
        name = config.get("_class_name", "DDPMScheduler")
        if not isinstance(name, str) or name not in Schedule.families:
            raise ValueError(
                f"_class_name: the noise of {str(name)[:80]} is not known here: expected "
                "DDPMScheduler or a sampler for its networks (DDIM, PNDM, DPMSolver, Euler, ...), "
                "ScoreSdeVeScheduler, EDMEulerScheduler, CMStochasticIterativeScheduler or "
                "FlowMatchEulerDiscreteScheduler"
            )
        return Schedule.families[name]._from_config(config)

    @classmethod
    @abstractmethod
    def _from_config(cls, config: dict[str, Any]) -> "Schedule": ...

    @abstractmethod
    def to_config(self) -> dict[str, Any]:
        """The dictionary that `scheduler_config.json` holds."""

    @property
    def learns_variance(self) -> bool:
        """Whether its networks have a second output a channel, for the variance of a step."""
        return False

    @abstractmethod
    def level(self, t) -> Level:
        """The noise level at the time t."""

    @abstractmethod
    def times(self, count: int, spacing: str | None = None, start=None) -> np.ndarray:
        """`count` times from the noisiest, or from `start`, on, descending."""

    @abstractmethod
    def scalings(self, at: Level) -> Scalings:
        """How a network's output is read at a level."""

    @property
    def shortest(self) -> float:
        """The time next to the data."""
        return 0

    @property
    def num_train_timesteps(self) -> int:
        """How many times there were in training, or stand for all of them."""
        return 1000

    @property
    def training_times(self) -> np.ndarray:
        """These times, ascending."""
        return np.sort(self.times(self.num_train_timesteps))

    def check(self) -> None:
        """Raises ValueError where no network can be read at some of the levels."""
        return

    def bounded(self, x0):
        """x̂₀ within the range that the schedule's config promises."""
        return x0

    def split(self, output) -> tuple[Any, dict[str, Any]]:
        """A network's output, and what it says of the variance of a step."""
        return output, {}

    def _ancestral(self, now: Level, following: Level, fresh) -> np.ndarray:
        """The deviation of a step's noise."""
        return following.sigma * np.sqrt(fresh)

    def nearest(self, deviations) -> np.ndarray:
        """The times at which σ/α is nearest to each of the deviations > 0."""
        times = self.all_times()
        at = self.level(times)
        distances = np.log(np.asarray(deviations)[..., None]) - np.log(at.sigma / at.alpha)
        return times[np.abs(distances).argmin(-1)]

    def all_times(self) -> np.ndarray:
        """All times, or as many as leave none out that matters, descending."""
        return self.times(1000)

    def steps(self, count: int | Array, spacing: str | None = None, *, inner: int = 0) -> Steps:
        """The coefficients of T steps (see `Steps`), by default spaced as the config says.

        Args:
            count: T; or the T times themselves, none later than the one before.
            spacing: of the times, where the family knows several.
            inner: K steps from each level down to the data beside them, for methods that ask.

        Raises:
            ValueError: for a count or a spacing that the schedule has not.
        """
        whole: Any = count
        times = self.times(whole, spacing) if np.ndim(count) == 0 else np.asarray(count)
        steps = self._between(times)
        if not inner:
            return steps
        return dataclasses.replace(steps, inner=self._between(self._ladder(times, inner)))

    def _ladder(self, times: np.ndarray, count: int) -> np.ndarray:
        """From each time down to the data, `count` times [..., count]."""
        return np.linspace(times, self.shortest, count, axis=-1).astype(times.dtype)

    def _between(self, times: np.ndarray) -> Steps:
        """From each time [..., K] to the next, and from the last to the data."""
        now = self.level(times)
        following = Level(
            *(
                np.concatenate([np.asarray(a)[..., 1:], np.full((*times.shape[:-1], 1), end)], -1)
                for a, end in zip(now, (times.dtype.type(0), 1.0, 0.0))
            )
        )
        ratio = following.sigma / now.sigma
        # At least 0, where two levels of a ladder are one but for rounding.
        fresh = np.maximum(1 - (now.alpha * ratio / following.alpha) ** 2, 0)
        noise = following.sigma * np.sqrt(fresh)
        return Steps(
            now=now,
            next=following,
            fresh=fresh,
            x0_coef=following.alpha * fresh,
            xt_coef=now.alpha * ratio**2 / following.alpha,
            noise_coef=noise,
            ancestral=self._ancestral(now, following, fresh),
            guidance=now.norm * following.norm,
        )

    def add_noise(self, x0, eps, t):
        """x_t = α_t·x₀ + σ_t·ε at one time t."""
        at = self.level(t)
        return jnp.asarray(at.alpha) * x0 + jnp.asarray(at.sigma) * eps


def check_count(count: Any, most: int | None = None) -> None:
    """Raises TypeError for a number of steps that is no integer, ValueError for too few or many."""
    if isinstance(count, bool) or not isinstance(count, int | np.integer):
        raise TypeError(f"steps: expected a number of steps, an integer, got {count!r}")
    if most is not None and not 1 <= count <= most:
        raise ValueError(f"steps: expected 1 to {most}, the training steps, got {count}")
    if count < 1:
        raise ValueError(f"steps: expected 1 or more, got {count}")
