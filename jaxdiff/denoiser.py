"""From a network and a schedule to a denoiser: x_t → x̂₀."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdiff.nn.unet import UNet2D
from jaxdiff.schedules.ddpm import Schedule, Steps
from jaxdiff.util.pytree import pytree, static


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


@pytree
class Denoiser:
    """x̂₀(x_t, t) = E[x₀ | x_t] by a network, with the config's prediction type and clipping.

    epsilon: x̂₀ = (x_t − √(1−ᾱ_t)·ε̂)/√ᾱ_t; sample: x̂₀ is the output; v_prediction:
    x̂₀ = √ᾱ_t·x_t − √(1−ᾱ_t)·v̂. Then dynamic thresholding (Saharia et al. 2022, per image) or
    clipping to ±clip_sample_range, as `schedule.config` says.

    Anything callable as `denoiser(x_t, t)` can stand in for it, such as `jd.priors.Gaussian`.

    Args:
        unet, schedule: what `jd.load` returns.
        class_label: for a class-conditional network, the class of every sample: an integer, or
            an embedding [time_embed_dim].
        remat: rematerialisation, for a guided sampler (DPS, ΠGDM) whose gradient does not fit:
            what the gradient needs of the network is computed again and not kept. A DPS step of
            CelebA-HQ's network at 256² takes 647 MB of temporaries instead of 1315, and 1.3 times
            as long (CPU).

    Raises:
        ValueError: if the network's outputs do not fit the schedule's variance type, or the
            class label is missing.

    Example:
        >>> import jaxdiff as jd
        >>> denoiser = Denoiser(*jd.load("faces64"))
        >>> jax.jit(Denoiser.__call__)(denoiser, jnp.zeros((64, 64, 3)), 500).shape
        (64, 64, 3)
    """

    unet: UNet2D
    schedule: Schedule
    class_label: Any = None
    remat: bool = static(default=False)

    def __post_init__(self):
        c, variance_type = self.unet.config, self.schedule.config.variance_type
        learned = variance_type.startswith("learned")
        expected = c.in_channels * (2 if learned else 1)
        if c.out_channels != expected:
            raise ValueError(
                f"out_channels: variance_type {variance_type!r} with {c.in_channels} input channels "
                f"needs {expected}, the network has {c.out_channels}"
            )
        if (c.class_embed_type or c.num_class_embeds) and self.class_label is None:
            raise ValueError("class_label: this network is class-conditional: pass the class")

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """[H, W, C] of the images it was trained on, where the config says so."""
        c = self.unet.config
        return None if c.size is None else (*c.size, c.in_channels)

    @property
    def dtype(self):
        """The dtype of a sampler's state: the network's, float32 at least."""
        return jnp.promote_types(self.unet.dtype, jnp.float32)

    def __call__(self, x_t, t) -> jax.Array:
        """x̂₀ in [-1, 1] of x_t [H, W, C] or [n, H, W, C] at one timestep t."""
        return self.predict(x_t, t).x0_hat

    def predict(self, x_t, t) -> Prediction:
        """x̂₀, ε̂ and, where the network predicts one, the variance."""
        config, dtype = self.schedule.config, x_t.dtype
        batch = x_t if x_t.ndim == 4 else x_t[None]
        labels = self.class_label
        if labels is not None:
            labels = jnp.asarray(labels)
            labels = jnp.broadcast_to(labels, (batch.shape[0], *labels.shape))
        # A network of one's own need not know remat.
        network = partial(self.unet, remat=True) if self.remat else self.unet
        output = network(batch, t, labels).astype(dtype).reshape(*x_t.shape[:-1], -1)
        variance = fraction = None
        if config.variance_type == "learned":
            output, variance = jnp.split(output, 2, -1)
        elif config.variance_type == "learned_range":
            output, raw = jnp.split(output, 2, -1)
            fraction = (raw + 1) / 2

        signal = jnp.asarray(self.schedule.sqrt_alphas_cumprod, dtype)[t]
        noise = jnp.asarray(self.schedule.sqrt_one_minus_alphas_cumprod, dtype)[t]
        if config.prediction_type == "epsilon":
            # Times a reciprocal, here and below: see GroupNorm.
            x0_hat, eps = (x_t - noise * output) * (1 / signal), output
        elif config.prediction_type == "sample":
            x0_hat, eps = output, (x_t - signal * output) * (1 / noise)
        else:
            x0_hat, eps = signal * x_t - noise * output, signal * output + noise * x_t
        if config.thresholding:
            x0_hat = _threshold(x0_hat, config.dynamic_thresholding_ratio, config.sample_max_value)
        elif config.clip_sample:
            x0_hat = jnp.clip(x0_hat, -config.clip_sample_range, config.clip_sample_range)
        return Prediction(x0_hat, eps, variance, fraction)


def _threshold(x, ratio, max_value):
    s = jnp.quantile(jnp.abs(x), ratio, axis=(-3, -2, -1), keepdims=True)
    s = jnp.clip(s, 1, max_value)
    return jnp.clip(x, -s, s) / s


def predict(denoiser, x_t, c: Steps) -> Prediction:
    """The prediction of any denoiser: one that only gives x̂₀ has its ε̂ derived."""
    if hasattr(denoiser, "predict"):
        return denoiser.predict(x_t, c.t)
    x0_hat = denoiser(x_t, c.t)
    reciprocal = 1 / jnp.sqrt(1 - c.alphas_cumprod)
    eps = (x_t - jnp.sqrt(c.alphas_cumprod) * x0_hat) * reciprocal
    return Prediction(x0_hat, eps)
