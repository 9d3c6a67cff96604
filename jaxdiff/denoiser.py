"""From a network and a schedule to a denoiser: x_t → x̂₀."""

import dataclasses
import inspect
import reprlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.checkpoints.fingerprint import of_weights
from jaxdiff.operators import Affine
from jaxdiff.schedules import Level, Schedule
from jaxdiff.util.pytree import concrete, field, pytree, static


class Prediction(NamedTuple):
    """What one network evaluation says about x_t.

    `x0_hat` is clipped as the config says, `eps` is the noise before clipping. Networks with a
    learned variance fill `variance` (σ², type "learned") or `fraction` (its place between the
    logarithms of the posterior variance, 0, and of β, 1, type "learned_range").
    """

    x0_hat: jax.Array
    eps: jax.Array
    variance: jax.Array | None = None
    fraction: jax.Array | None = None


class Prior(ABC):
    """What a sampler asks of a prior: x̂₀(x_t, level) = E[x₀ | x_t], and what its states mean.

    A subclass is a pytree with `__call__`; a network's `Denoiser` also says more in `predict`.
    Attributes: `decode`, the operator from its states to images in [0, 1]; `shape` [H, W, C] of the
    states and `schedule`, where they are known.
    """

    shape: Any = None
    schedule: Any = None
    decode: Any = Affine(0.5, 0.5)  # [-1, 1]
    digest: Any = None  # what tells its weights from any other prior's, where it has some

    # Whether nothing of a sample, not its rounding either, depends on those that are mapped beside it.
    independent: Any = False

    @abstractmethod
    def __call__(self, x, at) -> jax.Array:
        """x̂₀ of x_t [..., H, W, C] at a `Level`, or at a time of the schedule."""

    @property
    def image_shape(self) -> tuple[int, ...] | None:
        """[H, W, C] of its images, where that of the states is known."""
        if self.shape is None:
            return None
        return jax.eval_shape(self.decode, jax.ShapeDtypeStruct(self.shape, jnp.float32)).shape

    @property
    def dtype(self) -> Any:
        """The dtype of a sampler's state."""
        return jnp.result_type(float)

    def level(self, at) -> Level:
        """A level as it is, or that of a time of the schedule."""
        return at if isinstance(at, Level) else self.schedule.level(at)

    def predict(self, x, at: Level) -> Prediction:
        """x̂₀, and the ε̂ that follows from it."""
        x0_hat = self(x, at)
        return Prediction(x0_hat, (x - at.alpha * x0_hat) * (1 / at.sigma))

    def image(self, x) -> jax.Array:
        """A state as people see it: decoded, in [0, 1]."""
        return jnp.clip(self.decode(x), 0, 1)

    def state(self, image) -> jax.Array:
        """The state of an image."""
        return self.decode.pinv(image)


class Network(Protocol):
    """What a `Denoiser` asks of a network: a pytree with the fields of diffusers' config."""

    config: Any
    dtype: Any

    def __call__(self, x: jax.Array, t: Any, class_labels: Any = None) -> jax.Array:
        """The output [n, H, W, C] for x [n, H, W, C] at a time t."""
        ...


@pytree
class Denoiser(Prior):
    """x̂₀(x_t, t) = E[x₀ | x_t] by a network, as the schedule reads its output.

    For DDPM checkpoints, by prediction type: epsilon: x̂₀ = (x_t − √(1−ᾱ_t)·ε̂)/√ᾱ_t; sample: x̂₀ is
    the output; v_prediction: x̂₀ = √ᾱ_t·x_t − √(1−ᾱ_t)·v̂. Then dynamic thresholding or clipping,
    as the schedule's config says. It may be differentiated in reverse mode (`jax.grad`, `jax.vjp`); its
    convolutions' gradients are written out and leave no forward mode (`jax.jvp`).

    Args:
        network, schedule: what `jd.load` returns; the network is any pytree called as
            `network(x [n, H, W, C], t, class_labels)`.
        class_labels: for a class-conditional network, what every sample is of: a class, an integer;
            a mask of classes, or weights of them, [classes], whose embeddings are summed; an
            embedding [time_embed_dim] where `class_embed_type` is "identity". Another one does not
            recompile.
        decode: the operator from the network's states to images in [0, 1]; by default that of the
            schedule's `states`, which are [-1, 1] but for NCSN++.
        remat: rematerialisation, for a guided sampler (DPS, ΠGDM) whose gradient does not fit:
            what the gradient needs of the network is computed again and not kept, for half of the
            temporary memory and a third more time.

    Raises:
        ValueError: if the network's outputs do not fit the schedule's variance type, or the
            class labels are missing or none that the network knows.

    Example:
        >>> import jaxdiff as jd
        >>> denoiser = Denoiser(*jd.load("faces64"))
        >>> jax.jit(Denoiser.__call__)(denoiser, jnp.zeros((64, 64, 3)), 500).shape
        (64, 64, 3)
    """

    network: Network
    schedule: Schedule
    class_labels: Any = field(
        default=None, converter=lambda c: c if c is None or not concrete(c) else np.asarray(c)
    )
    decode: Any = None
    remat: bool = static(default=False)
    class_label: dataclasses.InitVar[Any] = None  # its name in the first release

    def __post_init__(self, class_label):
        self.schedule.check()
        c = self.network.config
        learned = self.schedule.learns_variance
        expected = c.in_channels * (2 if learned else 1)
        if c.out_channels != expected:
            raise ValueError(
                f"out_channels: {c.in_channels} input channels and a variance_type that is "
                f"{'' if learned else 'not '}learned need {expected}, the network has "
                f"{c.out_channels}"
            )
        filled: dict[str, Any] = {}
        if class_label is not None:
            warnings.warn("class_label: is class_labels now", DeprecationWarning, stacklevel=4)
            filled["class_labels"] = np.asarray(class_label)
        _check_labels(filled.get("class_labels", self.class_labels), c)
        if self.decode is None:
            low, high = self.schedule.states
            filled["decode"] = Affine(1 / (high - low), low / (low - high))
        return filled

    @property
    def unet(self) -> Any:
        """The network, by its name in the first release."""
        return self.network

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """[H, W, C] of the states it was trained on, where the config says so."""
        c = self.network.config
        return None if c.size is None else (*c.size, c.in_channels)

    @cached_property
    def digest(self) -> np.ndarray:
        """What tells the network's weights from others', in any type: `fingerprint.of_weights`."""
        return of_weights(self.network)

    @property
    def dtype(self):
        """The dtype of a sampler's state: the network's, float32 at least."""
        return jnp.promote_types(self.network.dtype, jnp.float32)

    @property
    def independent(self) -> bool:
        """The network's; not with `remat`, whose conditionals a map would turn into both of their branches."""
        return getattr(self.network, "independent", False) and not self.remat

    def __call__(self, x, at) -> jax.Array:
        """x̂₀ of x_t [H, W, C] or [n, H, W, C] at one level or timestep, in the network's units."""
        return self.predict(x, self.level(at)).x0_hat

    def predict(self, x, at: Level) -> Prediction:
        """x̂₀, ε̂ and, where the network predicts one, the variance."""
        s = self.schedule.scalings(self._in_dtype(at, x.dtype))
        batch = x if x.ndim == 4 else x[None]
        labels = self.class_labels
        if labels is not None:
            labels = jnp.asarray(labels)
            labels = jnp.broadcast_to(labels, (batch.shape[0], *labels.shape))
        # A network of one's own need not know remat.
        network: Any = self.network
        network = partial(network, remat=True) if self.remat else network
        output = network(s.into * batch, s.time, labels).astype(x.dtype)
        output, variance = self.schedule.split(output.reshape(*x.shape[:-1], -1))
        x0_hat = (s.skip * x + s.out * output) * s.gain
        eps = s.noise[0] * x + s.noise[1] * output
        return Prediction(self.schedule.bounded(x0_hat), eps, **variance)

    @staticmethod
    def _in_dtype(at: Level, dtype) -> Level:
        return Level(at.t, jnp.asarray(at.alpha, dtype), jnp.asarray(at.sigma, dtype))


def _check_labels(labels, c: Any) -> None:
    """Raises ValueError where they are not what a network of that config takes."""
    count: Any = c.num_class_embeds or 0
    conditional = c.class_embed_type is not None or c.num_class_embeds is not None
    if conditional and labels is None:
        raise ValueError("class_labels: this network is class-conditional: pass the class")
    if not conditional and labels is not None:
        raise ValueError("class_labels: this network is not class-conditional, leave them out")
    if labels is None or not concrete(labels):
        return
    numbers = np.issubdtype(labels.dtype, np.number) and bool(np.isfinite(labels).all())
    if c.class_embed_type == "identity":
        expected, fits = f"an embedding [{c.time_embed_dim}]", labels.shape == (c.time_embed_dim,)
    elif c.class_embed_type is not None:
        expected, fits = "a number", labels.shape == ()
    else:
        expected = f"an integer from 0 to {count - 1}, or a mask or weights [{count}]"
        whole = labels.shape == () and np.issubdtype(labels.dtype, np.integer)
        fits = labels.shape == (count,) or (whole and 0 <= labels < count)
        numbers = numbers or labels.dtype == bool
    if not (numbers and fits):
        raise ValueError(f"class_labels: expected {expected}, got {reprlib.repr(labels.tolist())}")


@pytree
class Called(Prior):
    """A callable as a prior: x̂₀ = call(x, level), or call(x, t) where its second argument is named t."""

    call: Any
    function: Callable | None = static(default=None)
    by_time: bool = static(default=False)

    @property
    def shape(self) -> Any:
        """Where the callable has such an attribute."""
        return getattr(self._callable, "shape", None)

    @property
    def schedule(self) -> Any:
        """Where the callable has such an attribute."""
        return getattr(self._callable, "schedule", None)

    @property
    def dtype(self) -> Any:
        """The callable's, or JAX's float."""
        return getattr(self._callable, "dtype", jnp.result_type(float))

    @property
    def _callable(self) -> Any:
        return self.function or self.call

    def __call__(self, x, at):
        return self._callable(x, at.t if self.by_time and isinstance(at, Level) else at)


def as_prior(denoiser) -> Prior:
    """A prior from what a user passes: a `Prior`, or a callable `(x, level)`.

    One whose second argument is named `t` is called with a timestep, as in the first release.

    Raises:
        TypeError: for anything else.
    """
    if isinstance(denoiser, Prior):
        return denoiser
    if not callable(denoiser) or isinstance(denoiser, type):
        raise TypeError(f"denoiser: expected jd.Denoiser(network, schedule), got {denoiser!r}")
    parameters = list(inspect.signature(denoiser).parameters)
    by_time = len(parameters) > 1 and parameters[1] in ("t", "timestep")
    if inspect.isfunction(denoiser):
        return Called(None, denoiser, by_time)
    return Called(denoiser, None, by_time)
