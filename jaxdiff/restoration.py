"""The one-liner: a measurement, its operator and its noise → posterior samples."""

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdiff.covariance import SpectralCovariance
from jaxdiff.denoiser import Prior, as_prior
from jaxdiff.noise import Gaussian, Noise
from jaxdiff.observation import first
from jaxdiff.operators import Linear, Operator, Stack, as_operators
from jaxdiff.operators.unknown_blur import unknown
from jaxdiff.priors import of_size
from jaxdiff.priors import prior as load_prior
from jaxdiff.samplers.base import Covariance, decodes_linearly
from jaxdiff.samplers.presets import preset
from jaxdiff.sampling import sample
from jaxdiff.util.arrays import Array, Number


class Restoration(NamedTuple):
    """Posterior samples [n, H, W, C] in [0, 1], their mean and their standard deviation [H, W, C].

    With a leading axis B for a batch of measurements; `std` is None for a single draw. `sampler` and
    `steps` say what drew them, `kept` is what a `keep=` recorded; `kernels` [n, size, size] are the blurs
    that were found, each draw's own, where they were unknown.
    """

    draws: jax.Array
    mean: jax.Array
    std: jax.Array | None
    sampler: str
    steps: int
    kept: Any = None
    kernels: jax.Array | None = None


def restore(
    y: Array,
    operator: Operator | Stack,
    sigma: Number | Noise,
    *,
    prior: "str | Path | Prior" = "photos64",
    n: int = 9,
    sampler: str | None = None,
    steps: int | None = None,
    scale: float | None = None,
    covariance: Covariance | None = None,
    key: jax.Array | None = None,
    **options: Any,
) -> Restoration:
    """Draw images that a measurement y = A(x) + noise could be of, at the measurement's own size.

    Args:
        y: the measurement in image units [0, 1], or a batch of them [B, ...].
        operator: A, of `jd.operators`; or any differentiable function of an image [H, W, C].
        sigma: the standard deviation of the noise in image units (10/255, say), or a `jd.noise`.
        prior: what `jd.prior` takes, such as "photos64" (photographs of anything), "faces64" (faces at
            64×64), a folder, a file or a hub id; or a prior, such as it returns.
        n: how many samples of each measurement.
        sampler: a name in `jaxdiff.samplers.presets.PRESETS`. By default "spectral" where the prior has a
            covariance table, but "blind" for an `UnknownBlur` and "daps" for `PhaseRetrieval`; where it
            has none, "pigdm-paper" for linear operators and Gaussian noise, and "dps" for others, as for
            a prior of latents.
        steps: by default the preset's.
        scale: of the guidance; by default the preset's.
        covariance: a `jd.SpectralCovariance`; by default the one beside the prior.
        key: a `jax.random.key`, by default that of seed 0.
        options: of `jd.sample`: keep, progress, batch_size, sharding, precision.

    Raises:
        ValueError, TypeError: for a measurement, operator, noise or sampler that do not go together.
        FileNotFoundError: where there is no such prior.

    Example:
        >>> import jaxdiff as jd
        >>> blur = jd.operators.Blur(jd.data.motion_kernel(9, seed=0), (64, 64))
        >>> restored = restore(blur(jd.data.example()), blur, 2 / 255, n=2, steps=2)
        >>> restored.mean.shape, restored.sampler
        ((64, 64, 3), 'spectral')
    """
    denoiser, table = _prior(prior)
    covariance = table if covariance is None else covariance
    operator = as_operators(operator)
    denoiser = of_size(denoiser, _image_size(operator, y, denoiser))
    name = sampler or default_sampler(denoiser, operator, sigma, covariance)
    chosen = preset(name)
    count = steps or chosen.steps
    method = chosen.sampler(denoiser, operator, y, sigma, scale, covariance)
    key = jax.random.key(0) if key is None else key
    keep = options.pop("keep", None)
    watched = keep if unknown(first(operator)) is None else _with_kernel(keep)
    found: Any = sample(method, method.steps(count), key=key, n=n, keep=watched, **options)
    draws, kept = found if watched is not None else (found, None)
    kernels: Any = None
    if isinstance(kept, _Watched):
        kept, kernels = kept.kept, kept.kernels[-1]
    std = draws.std(-4, ddof=1) if n > 1 else None
    return Restoration(draws, draws.mean(-4), std, name, count, kept, kernels)


class _Watched(NamedTuple):
    kept: Any
    kernels: Any


@cache
def _with_kernel(keep):
    """What `keep` records, and the kernel: the same function for the same `keep`, which is static."""

    def watch(x, info):
        return _Watched(None if keep is None else keep(x, info), info["kernel"])

    return watch


def default_sampler(
    denoiser: Prior,
    operator: Operator | Stack,
    sigma: Number | Noise,
    covariance: Covariance | None,
) -> str:
    """The name of the sampler for what is to be restored."""
    one = first(operator)
    if unknown(one) is not None:
        return "blind"
    if not decodes_linearly(denoiser):
        return "dps"
    if one.ambiguous:
        return "daps"
    noise = sigma if isinstance(sigma, Noise) else Gaussian(sigma)
    if covariance is not None and type(noise).variance is not Noise.variance:
        return "spectral"
    return "pigdm-paper" if isinstance(noise, Gaussian) and isinstance(one, Linear) else "dps"


def _image_size(operator: Operator | Stack, y, prior: Prior) -> tuple[int, ...]:
    """(H, W) of the images: the operator's own, or by y's shape, or else the prior's."""
    one, measured = first(operator), np.shape(y)[-3:]
    if one.shape is not None:
        return one.shape
    image = jax.ShapeDtypeStruct(one.input_shape(measured), np.float32)
    try:
        known = jax.eval_shape(one, image).shape == measured
    except (TypeError, ValueError):
        known = False
    return image.shape[:2] if known or prior.image_shape is None else prior.image_shape[:2]


def _prior(prior) -> tuple[Prior, SpectralCovariance | None]:
    """The denoiser, and its table where it has one."""
    if not isinstance(prior, str | Path):
        return as_prior(prior), getattr(prior, "covariance", None)
    return load_prior(prior), SpectralCovariance.find(prior)
