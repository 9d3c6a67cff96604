"""The variance-preserving schedules of DDPM: all of diffusers' DDPMScheduler as data."""

import dataclasses
import functools
import math
import reprlib
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.schedules import fields
from jaxdiff.schedules.base import Level, Scalings, Schedule, check_count
from jaxdiff.schedules.families import DDPM_FAMILY, check_family
from jaxdiff.util import limits
from jaxdiff.util.pytree import frozen, pytree, static

BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2", "laplace", "sigmoid")
VARIANCE_TYPES = (
    "fixed_small",
    "fixed_small_log",
    "fixed_large",
    "fixed_large_log",
    "learned",
    "learned_range",
)
SPACINGS = ("leading", "trailing", "linspace")


@frozen
class ScheduleConfig:
    """The fields of diffusers' DDPMScheduler, with its names and its defaults."""

    num_train_timesteps: int = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    trained_betas: tuple[float, ...] | None = None
    variance_type: str = "fixed_small"
    clip_sample: bool = True
    prediction_type: str = "epsilon"
    thresholding: bool = False
    dynamic_thresholding_ratio: float = 0.995
    clip_sample_range: float = 1.0
    sample_max_value: float = 1.0
    timestep_spacing: str = "leading"
    steps_offset: int = 0
    rescale_betas_zero_snr: bool = False

    def __post_init__(self):
        _check_fields(self)
        betas = self.betas()
        if not (np.all(betas > 0) and np.all(betas <= 1)):
            raise ValueError("the betas of this schedule are not all in (0, 1]")
        if self.trained_betas is None:
            return None
        trained = tuple(map(float, self.trained_betas))
        return {"trained_betas": trained, "num_train_timesteps": len(trained)}

    def betas(self) -> np.ndarray:
        """β_t in float64, shape [num_train_timesteps]."""
        n, start, end = self.num_train_timesteps, self.beta_start, self.beta_end
        if self.trained_betas is not None:
            betas = np.array(self.trained_betas, np.float64)
        elif self.beta_schedule == "linear":
            betas = np.linspace(start, end, n)
        elif self.beta_schedule == "scaled_linear":
            betas = np.linspace(start**0.5, end**0.5, n) ** 2
        elif self.beta_schedule == "sigmoid":
            betas = 1 / (1 + np.exp(-np.linspace(-6, 6, n))) * (end - start) + start
        else:
            betas = _betas_of(_ALPHA_BAR[self.beta_schedule], n)
        return _rescale_zero_terminal_snr(betas) if self.rescale_betas_zero_snr else betas


def _check_fields(config: ScheduleConfig) -> None:
    fields.check(
        config,
        choices={
            "beta_schedule": BETA_SCHEDULES,
            "variance_type": VARIANCE_TYPES,
            "prediction_type": ("epsilon", "sample", "v_prediction"),
            "timestep_spacing": SPACINGS,
        },
        switches=("clip_sample", "thresholding", "rescale_betas_zero_snr"),
        integers={"num_train_timesteps": (0, math.inf), "steps_offset": (-1, math.inf)},
        numbers={
            "beta_start": (0, 1),
            "beta_end": (0, 1),
            "dynamic_thresholding_ratio": (0, 1),
            "clip_sample_range": (0, 1e6),
            "sample_max_value": (0, 1e6),
        },
    )
    betas = config.trained_betas
    if betas is not None and not (
        isinstance(betas, list | tuple | np.ndarray)
        and len(betas)
        and all(fields.is_number(beta) and 0 < beta <= 1 for beta in betas)
    ):
        fields.fail("trained_betas", "a list of numbers in (0, 1]", betas)
    count = config.num_train_timesteps if betas is None else len(betas)
    limits.check("num_train_timesteps", count, "TIMESTEPS")
    if config.steps_offset >= count:
        fields.fail("steps_offset", f"less than the {count} training steps", config.steps_offset)


def _cosine(u: float) -> float:
    return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2


def _laplace(u: float) -> float:
    log_snr = -0.5 * math.copysign(1, 0.5 - u) * math.log(1 - 2 * math.fabs(0.5 - u) + 1e-6)
    return math.sqrt(math.exp(log_snr) / (1 + math.exp(log_snr)))


_ALPHA_BAR = {"squaredcos_cap_v2": _cosine, "laplace": _laplace}


def _betas_of(alpha_bar, n: int, max_beta: float = 0.999) -> np.ndarray:
    return np.array(
        [min(1 - alpha_bar((i + 1) / n) / alpha_bar(i / n), max_beta) for i in range(n)]
    )


def _rescale_zero_terminal_snr(betas: np.ndarray) -> np.ndarray:
    """Lin et al. 2023 (arXiv 2305.08891), algorithm 1: ᾱ of the last step becomes 0."""
    root = np.sqrt(np.cumprod(1 - betas))
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    alphas_cumprod = root**2
    return 1 - np.concatenate([alphas_cumprod[:1], alphas_cumprod[1:] / alphas_cumprod[:-1]])


@functools.cache
def _tables(config: ScheduleConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ᾱ_t, √ᾱ_t and √(1 − ᾱ_t) in float64, [num_train_timesteps]."""
    alphas_cumprod = np.cumprod(1 - config.betas())
    return alphas_cumprod, np.sqrt(alphas_cumprod), np.sqrt(1 - alphas_cumprod)


@pytree
class DDPMSchedule(Schedule, schedulers=DDPM_FAMILY):
    """A variance-preserving schedule: x_t = √ᾱ_t·x₀ + √(1 − ᾱ_t)·ε at the timesteps 0 to N − 1.

    `alphas_cumprod` [N] holds ᾱ_t, computed in float64 (diffusers' own are float32: at t = 0 its
    1 − ᾱ has four good digits). `config` is static: the fields of diffusers' DDPMScheduler.

    Source: Ho et al. 2020 (arXiv 2006.11239); spacings: Lin et al. 2023 (arXiv 2305.08891).

    Example:
        >>> schedule = DDPMSchedule(ScheduleConfig(beta_schedule="linear"))
        >>> schedule.steps(4).t
        array([750, 500, 250,   0])
    """

    config: ScheduleConfig = static(default=ScheduleConfig())

    @classmethod
    def _from_config(cls, config: dict[str, Any]) -> "DDPMSchedule":
        """Fields that only other schedulers of the same noise have are ignored.

        Those that no DDPM has are too, with a warning, as diffusers does.
        """
        known = {f.name for f in dataclasses.fields(ScheduleConfig)}
        found = check_family(config)
        unknown = sorted(k for k in found if k not in known and not k.startswith("_"))
        if unknown and config.get("_class_name", "").startswith("DDPM"):
            warnings.warn(
                f"scheduler_config: ignoring {reprlib.repr(unknown)[1:-1]}, which DDPMScheduler does "
                "not have",
                stacklevel=4,
            )
        return cls(fields.build(ScheduleConfig, found))

    def to_config(self) -> dict[str, Any]:
        """The dictionary that `scheduler_config.json` holds."""
        return {"_class_name": "DDPMScheduler"} | dataclasses.asdict(self.config)

    @property
    def num_train_timesteps(self) -> int:
        """N: timesteps run from 0 to N − 1."""
        return self.config.num_train_timesteps

    @property
    def training_times(self) -> np.ndarray:
        """0 to N − 1."""
        return np.arange(self.num_train_timesteps)

    @property
    def betas(self) -> np.ndarray:
        """β_t of the training schedule, float64 [N]."""
        return self.config.betas()

    @property
    def alphas_cumprod(self) -> np.ndarray:
        """ᾱ_t, float64 [N]."""
        return _tables(self.config)[0]

    def level(self, t) -> Level:
        """(t, √ᾱ_t, √(1 − ᾱ_t)): of numpy's integers in float64, of JAX's in JAX's dtype."""
        traced = isinstance(t, jax.Array)
        alpha, sigma = ((jnp.asarray(a) if traced else a)[t] for a in _tables(self.config)[1:])
        return Level(t, alpha, sigma)

    def times(self, count: int, spacing: str | None = None, start: int | None = None) -> np.ndarray:
        """The T timesteps of a respaced trajectory, descending (diffusers' `set_timesteps`).

        Raises:
            TypeError: for a count that is no integer; ValueError: for one outside [1, N], or an
                unknown spacing.
        """
        n, spacing = self.num_train_timesteps, spacing or self.config.timestep_spacing
        n = n if start is None else start + 1
        check_count(count, n)
        if spacing == "leading":
            t = np.arange(count)[::-1] * (n // count) + self.config.steps_offset
            if t[0] >= n:
                raise ValueError(
                    f"steps: {count} steps with steps_offset={self.config.steps_offset} "
                    f"begin at {t[0]}, past the last training step {n - 1}"
                )
        elif spacing == "linspace":
            t = np.linspace(0, n - 1, count).round()[::-1]
        elif spacing == "trailing":
            # n - k·n/T, not arange with a float step, which can yield one step too many
            t = np.round(n - np.arange(count) * (n / count)) - 1
        else:
            raise ValueError(f"spacing: expected one of {', '.join(SPACINGS)}, got {spacing!r}")
        return t.astype(np.int64)

    timesteps = times  # diffusers' name

    def all_times(self) -> np.ndarray:
        return np.arange(self.num_train_timesteps)[::-1]

    def scalings(self, at: Level) -> Scalings:
        """By `prediction_type`: ε̂, x̂₀, or v̂ = √ᾱ_t·ε − √(1−ᾱ_t)·x₀."""
        match self.config.prediction_type:
            case "epsilon":
                return Scalings(1, at.t, 1, -at.sigma, 1 / at.alpha, (0, 1))
            case "sample":
                return Scalings(1, at.t, 0, 1, 1, (1 / at.sigma, -at.alpha / at.sigma))
            case _:
                return Scalings(1, at.t, at.alpha, -at.sigma, 1, (at.sigma, at.alpha))

    def check(self) -> None:
        """ε says nothing about x₀ where ᾱ = 0: x̂₀ would divide by it."""
        smallest = self.alphas_cumprod.min()
        if self.config.prediction_type == "epsilon" and smallest < np.finfo(np.float32).tiny:
            raise ValueError(
                "prediction_type: epsilon says nothing about x₀ where ᾱ = 0, as at the end of this "
                "schedule (rescale_betas_zero_snr, or a β of 1): expected v_prediction or sample"
            )

    def bounded(self, x0):
        """Dynamic thresholding (Saharia et al. 2022, per image), or clipping to the config's range."""
        c = self.config
        if c.thresholding:
            s = jnp.quantile(
                jnp.abs(x0), c.dynamic_thresholding_ratio, axis=(-3, -2, -1), keepdims=True
            )
            s = jnp.clip(s, 1, c.sample_max_value)
            return jnp.clip(x0, -s, s) / s
        return jnp.clip(x0, -c.clip_sample_range, c.clip_sample_range) if c.clip_sample else x0

    @property
    def learns_variance(self) -> bool:
        """By the variance type."""
        return self.config.variance_type.startswith("learned")

    def split(self, output) -> tuple[Any, dict[str, Any]]:
        """The output alone, and σ² ("learned") or its place between two bounds ("learned_range")."""
        if not self.learns_variance:
            return output, {}
        output, raw = jnp.split(output, 2, -1)
        if self.config.variance_type == "learned":
            return output, {"variance": raw}
        return output, {"fraction": (raw + 1) / 2}

    def _ancestral(self, now: Level, following: Level, fresh) -> np.ndarray:
        """By the variance type; the last step, which returns x̂₀, has none whatever the type.

        diffusers puts noise on the last step where that is not t = 0 and the variance type is
        not fixed_small. Its fixed_large_log takes the root of a logarithm (NaN); here it means √β.
        """
        if self.config.variance_type in ("fixed_large", "fixed_large_log"):
            return np.where(following.sigma > 0, now.sigma * np.sqrt(fresh), 0)
        return following.sigma * np.sqrt(fresh)
