"""What a sampler is, the one formula by which all noise moves, and what a posterior sampler adds."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.denoiser import Prediction, Prior, as_prior
from jaxdiff.noise import Gaussian, Noise, as_noise
from jaxdiff.observation import (
    Observation,
    as_measurement,
    batch_of,
    check_linear,
    check_scale,
    check_spectral,
    first,
    image_shape,
    is_linear,
)
from jaxdiff.operators import Linear, Operator, Stack, as_operators
from jaxdiff.operators.unknown_blur import unknown
from jaxdiff.schedules import Level, Steps
from jaxdiff.util.arrays import Array, Number, as_number
from jaxdiff.util.pytree import concrete, describe, field, pytree, replace_leaf


class Draws(NamedTuple):
    """The randomness of a step: z ~ N(0, I) of the state's shape, and a key for what needs more."""

    z: Array
    key: jax.Array | None = None

    def require_key(self) -> jax.Array:
        """The key, for draws beside z.

        Raises:
            ValueError: where the caller gave `noise=` and no key.
        """
        if self.key is None:
            raise ValueError("key: pass jax.random.key(seed): this sampler draws more than noise=")
        return self.key


def move(x, c: Steps, x0, z, fresh=None) -> jax.Array:
    """x_s ~ q(x_s | x_t, x₀), of whose noise the share `fresh` is new.

    x_s = α_s·x₀ + σ_s·(√(1 − f)·ε_t + √f·z) with ε_t = (x_t − α_t·x₀)/σ_t. None means τ, with which
    the transition is that of the forward process (DDPM); η²τ is DDIM's, ζ DiffPIR's, 1 DAPS's, and 0
    that of an ODE. For τ the coefficients are those computed in float64.
    """
    if fresh is None:
        return c.x0_coef * x0 + c.xt_coef * x + c.noise_coef * z
    kept = c.next.sigma / c.now.sigma * jnp.sqrt(1 - fresh)
    return (c.next.alpha - kept * c.now.alpha) * x0 + kept * x + c.next.sigma * jnp.sqrt(fresh) * z


def ancestral(x, c: Steps, p: Prediction, z) -> jax.Array:
    """The step that DDPM, DPS and ΠGDM share: `move` to x̂₀, the noise as the schedule wants it.

    A network may say itself how much: a variance, or its place between the logarithms of the
    posterior variance and of β.
    """
    deviation = c.ancestral
    if p.variance is not None:
        deviation = jnp.where(c.next.sigma > 0, jnp.sqrt(p.variance), 0)
    elif p.fraction is not None:
        low, high = jnp.log(jnp.maximum(c.posterior_variance, 1e-20)), jnp.log(c.betas)
        learned = jnp.exp(0.5 * (p.fraction * high + (1 - p.fraction) * low))
        deviation = jnp.where(c.next.sigma > 0, learned, 0)
    return c.x0_coef * p.x0_hat + c.xt_coef * x + deviation * z


class Covariance(Protocol):
    """Cov[x₀ | x_t] as a sampler asks for it, such as `SpectralCovariance`.

    `stationary`: whether it is a matrix a frequency, the same for every x_t.
    """

    @property
    def stationary(self) -> bool: ...

    def at(self, x_t: Array, at: Level, x0_hat: Array | None = None) -> Any:
        """Σ at a level: an object with `apply(v)` and `draw(ε)`, and `matrices` where it has them."""
        ...

    def check(self, denoiser: Prior) -> None:
        """Raises ValueError where it is not of such a prior."""
        ...


class Sampler(ABC):
    """A step of a trajectory; `jd.sample` is the loop, and asks only what stands here.

    A subclass is a pytree with a `denoiser` and `step`. `inner` is how many steps it wants from each
    level down to the data (`Steps.inner`).
    """

    denoiser: Any
    inner: Any = 0

    @property
    def evaluations(self) -> int:
        """Of the network in a step: one, or one of each step of the ladder."""
        return self.inner or 1

    @abstractmethod
    def step(self, x, c: Steps, draws: Draws) -> tuple[Any, dict[str, Any]]:
        """The next state of one sample x [H, W, C], and what `keep=` may look at.

        A pure function; c is a row of `Steps`. The info has `t` and `x0_hat` at least.
        """

    @property
    def shape(self) -> tuple[int, ...] | None:
        """[H, W, C] of the noise that a sample begins with, where it is known."""
        return self.denoiser.shape

    def steps(self, count: int) -> Steps:
        """The `count` steps that it wants: those of the schedule, unless its paper has others."""
        return self.denoiser.schedule.steps(count, inner=self.inner)

    def begin(self, x) -> Any:
        """The first state, of the noise x_T."""
        return x

    def result(self, state) -> jax.Array:
        """The sample [H, W, C] that a state holds, of the prior's states."""
        return state

    def split(self) -> tuple[Any, dict[str, Any], tuple[int, ...]]:
        """(the sampler without what differs by measurement, that with a leading axis, batch shape)."""
        return self, {}, ()


class Restorer(Sampler):
    """A posterior sampler: of x given y = A(x) + noise.

    A subclass is a pytree with the fields `denoiser`, `operator`, `y` and, unless it needs none,
    `sigma`, each with its converter (see `PiGDM`); it sets `requires_gaussian` where it takes Gaussian
    noise only, `requires_linear` where linear operators too, and `requires_spectral` where these must
    have `Linear.spectral` besides.

    Raises:
        ValueError: for a y that does not fit the operator or holds no finite floats, a negative
            sigma, an operator that is not linear where it must be.
        TypeError: for what is no operator, or no `jd.operators.Linear` where it must be one.
    """

    operator: Any
    y: Any
    sigma: Any = None
    requires_gaussian: Any = False
    requires_linear = False
    requires_spectral = False
    finds_kernels = False

    def __post_init__(self):
        if not self.finds_kernels and unknown(first(self.operator)) is not None:
            raise TypeError(
                f"operator: {type(self).__name__} needs the blur's kernel: jd.operators.Blur(kernel, "
                "shape); jd.Blind takes an UnknownBlur"
            )
        batch = self._batch()
        if self.requires_linear:
            check_linear(self.operator, self._image_shape)
        if self.linear_decode:
            _ = self.denoiser.decode.linear  # which a prior of latents has not
        if not isinstance(self.sigma, Noise) and np.shape(self.sigma) not in ((), (batch,)):
            raise ValueError(
                "sigma: expected a number, or one for each measurement, got "
                f"{describe(self.sigma)}; one for each pixel is jd.noise.Gaussian's"
            )
        self._check_noise()
        # Asked of the measurement, which refuses another noise, where only Gaussian noise will do.
        required = self.requires_linear or self.requires_gaussian
        gaussian = required or isinstance(self.noise, Gaussian)
        one = Observation(first(self.operator), self.y, self.noise)
        sigma = one.whitened().sigma if gaussian else None
        if self.requires_spectral:
            check_spectral(one.whitened().operator, self._image_shape)
        check_scale(self.operator, self.y, sigma, self._image_shape)

    @property
    def linear_decode(self) -> bool:
        """Whether the prior's states must become images by a linear map."""
        return self.requires_linear

    def _check_noise(self):
        """Raises ValueError where a noise with a parameter for each pixel does not fit y."""
        y = jax.ShapeDtypeStruct(self.y.shape[-3:], jnp.float32)
        try:
            fits = self.noise is None or jax.eval_shape(self.noise.residual, y, y).shape == y.shape
        except (TypeError, ValueError):
            fits = False
        if not fits and isinstance(self.sigma, Noise):
            raise ValueError(f"sigma: {self.sigma!r} does not fit a measurement {list(y.shape)}")

    def _batch(self) -> int | None:
        return batch_of(self.operator, self._known, self.y)

    @property
    def _known(self):
        """[H, W, C] of the prior's images, where it says."""
        return self.denoiser.image_shape

    @property
    def _image_shape(self) -> tuple[int, ...]:
        return image_shape(self.operator, self._known, self.y)

    @property
    def shape(self) -> tuple[int, ...] | None:
        """[H, W, C] of a state: what the operator or the prior says."""
        return self.denoiser.decode.input_shape(self._image_shape)

    @property
    def noise(self) -> Noise | None:
        """Of the measurement: a float sigma means `Gaussian(sigma)`."""
        plain = self.sigma is None or isinstance(self.sigma, Noise)
        return self.sigma if plain else Gaussian(self.sigma)

    @property
    def conjugate(self) -> bool:
        """Whether p(y | x) is conjugate to a Gaussian: the operator linear, and the noise Gaussian."""
        return isinstance(first(self.operator), Linear) and isinstance(self.noise, Gaussian)

    def check_likelihood(self, sigma) -> None:
        """Raises ValueError for a deviation of 0, of which there is no likelihood."""
        value = sigma.sigma if isinstance(sigma, Gaussian) else sigma
        if concrete(value) and not isinstance(value, Noise) and not np.all(np.asarray(value) > 0):
            raise ValueError(
                f"sigma: {type(self).__name__} divides by it: expected a number > 0, got 0"
            )

    @property
    def measured(self) -> Observation:
        """The observation of images, in their units; Gaussian noise has one σ there."""
        return Observation(self.operator, self.y, self.noise).whitened()

    @property
    def observation(self) -> Observation:
        """The observation of the prior's states."""
        return self.measured @ self.denoiser.decode

    def split(self):
        """The compiled program gets each sample's own y and never the whole batch."""
        batch = self._batch()
        if batch is None:
            return replace_leaf(self, y=None), {"y": self.y[None]}, ()
        per_sample = {"y": self.y}
        if isinstance(self.operator, Stack):
            per_sample["operator"] = self.operator.operators
        if not isinstance(self.sigma, Noise) and np.ndim(self.sigma) == 1:
            per_sample["sigma"] = self.sigma
        return replace_leaf(self, **dict.fromkeys(per_sample)), per_sample, (batch,)


def decodes_linearly(denoiser: Prior) -> bool:
    """Whether its states become images by a linear map, but for a shift."""
    return is_linear(denoiser.decode)


@pytree
class PosteriorSampler(Restorer):
    """A `Restorer` with the four fields that most have: subclass it under `@pytree`, and add one's own.

    Args:
        denoiser: a `Denoiser` or its stand-in.
        operator: A, from images [H, W, C] in [0, 1].
        y: the measurement in image units, or a batch of them [B, ...].
        sigma: the standard deviation of its noise in image units, ≥ 0, or [B] of them; or a `jd.noise`.
    """

    denoiser: Prior = field(converter=as_prior)
    operator: Operator | Stack = field(converter=as_operators)
    y: Array = field(converter=as_measurement)
    sigma: Number | Noise = field(converter=as_noise)

    @abstractmethod
    def step(self, x, c: Steps, draws: Draws) -> tuple[Any, dict[str, Any]]: ...


def as_scale(name: str, largest: float = 1e6, optional: bool = False) -> Callable[[Any], Any]:
    """`as_number` from 0 to `largest`."""
    return as_number(
        name, f"a number from 0 to {largest:g}", lambda value: 0 <= value <= largest, optional
    )


def as_count(name: str) -> Callable[[Any], int]:
    """A converter: an integer ≥ 1."""

    def convert(value) -> int:
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name}: expected an integer ≥ 1, got {value!r}")
        return int(value)

    return convert
