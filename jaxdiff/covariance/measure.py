"""The measurement of a denoiser's error: images are noised, denoised, and the errors transformed."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from jaxdiff.denoiser import Prior
from jaxdiff.linalg.fields import contrast, half_weights
from jaxdiff.samplers.ddpm import DDPM
from jaxdiff.sampling import sample
from jaxdiff.schedules import Level, Schedule
from jaxdiff.util.platform import jit, map_samples

EXPONENTS = np.linspace(0, 0.6, 13, dtype=np.float32)  # of the contrast: which of them is measured
# By how much an exponent must lower −2·log-likelihood, a pixel, to be taken instead of 0: below it
# conjugate gradients would take as many iterations for nothing (benchmarks/choices.md).
WORTH = 0.02
STABLE = 64  # images: at frequency 0 an image has one value, and 64 of them err by √(2/64) = 18 %


def measure(
    denoiser: Prior, images, key, *, n: int | None, levels: int, batch_size: int, progress: bool
) -> dict[str, Any]:
    """The fields of a `SpectralCovariance`; see its `estimate`."""
    schedule = denoiser.schedule
    if images is None:
        images = _own_samples(denoiser, n or 64, key, batch_size, progress)
    images = np.asarray(images)[:n]
    _check_images(images, denoiser)
    if len(images) < STABLE:
        warnings.warn(
            f"the covariance is measured on {len(images)} images: with fewer than {STABLE} its "
            "lowest frequencies are not stable",
            stacklevel=2,
        )
    at = _levels(schedule, levels)
    state = jax.eval_shape(denoiser.state, jax.ShapeDtypeStruct(images.shape[1:], images.dtype))
    spacing = 1 / max(state.shape[:2])
    rings = _ring_weights(state.shape[:2], spacing)
    total: Any = None
    with tqdm(total=len(images), unit="image", disable=not progress) as bar:
        for start in range(0, len(images), batch_size):
            # The last batch is filled up with repeats.
            chosen = np.minimum(np.arange(start, start + batch_size), len(images) - 1)
            keys = jax.vmap(jax.random.fold_in, (None, 0))(key, chosen)
            found = _errors(denoiser, images[chosen], keys, at, rings)
            count = min(batch_size, len(images) - start)
            part = [np.asarray(f)[:count].sum(0, dtype=np.float64) for f in found]
            total = part if total is None else [t + p for t, p in zip(total, part)]
            bar.update(count)
    powers, energies, contrasts = (t / len(images) for t in total)
    # [L, γ]: −2·log-likelihood a pixel, up to a constant
    unlikely = np.log(energies) + EXPONENTS * contrasts[:, None]
    best = np.where(unlikely[:, 0] - unlikely.min(1) > WORTH, unlikely.argmin(1), 0)
    modulation = np.stack([EXPONENTS[best], contrasts], -1)
    each = np.arange(len(best))
    # Measured for m² = g^γ; divided by its mean in the logarithm, m² varies around 1.
    table = powers[each, best] * np.exp(EXPONENTS[best] * contrasts)[:, None, None, None]
    # Positive definite, also from fewer images than channels.
    mean = np.trace(table, axis1=-2, axis2=-1)[..., None, None] / table.shape[-1]
    table = table + 1e-5 * mean * np.eye(table.shape[-1])
    table = table / np.asarray(at.noise)[:, None, None, None]
    modulated = modulation.astype(np.float32) if modulation[:, 0].any() else None
    return {
        "table": table.astype(np.float32),
        "timesteps": at.t,
        "alphas_cumprod": at.signal,
        "spacing": spacing,
        "modulation": modulated,
        "weights": denoiser.digest,
    }


@jit
def _errors(denoiser, images, keys, levels, rings):
    """Of images [n, H, W, C] in [0, 1], what `measure` averages, at L levels and for every γ.

    The rings' mean of ê ê* of e·g^(−γ/2) [n, L, γ, R, C, C], the mean square of that [n, L, γ],
    and the mean of log g [n, L].
    """

    def one(image, key):
        x0 = denoiser.state(image)

        def level(item):
            number, at = item
            eps = jax.random.normal(jax.random.fold_in(key, number), x0.shape, x0.dtype)
            x_t = at.alpha.astype(x0.dtype) * x0 + at.sigma.astype(x0.dtype) * eps
            x0_hat = denoiser.predict(x_t, at).x0_hat
            log_g = contrast(x0_hat)

            def power(exponent):
                error = (x0 - x0_hat) * jnp.exp(-exponent / 2 * log_g)[..., None]
                e = jnp.fft.rfft2(error, axes=(0, 1), norm="ortho")
                square = (e[..., :, None] * jnp.conj(e[..., None, :])).real
                highest = jax.lax.Precision.HIGHEST
                of_rings = jnp.einsum("rhw,hwcd->rcd", rings, square, precision=highest)
                return of_rings, jnp.mean(error**2)

            return *jax.lax.map(power, jnp.asarray(EXPONENTS, dtype)), log_g.mean()

        return jax.lax.map(level, (jnp.arange(len(levels.t)), levels))

    dtype = denoiser.dtype
    rings = jnp.asarray(rings, dtype)
    return map_samples(one)(jnp.asarray(images, dtype), keys)


def _own_samples(denoiser, n, key, batch_size, progress):
    return sample(
        DDPM(denoiser),
        denoiser.schedule.steps(min(100, denoiser.schedule.num_train_timesteps)),
        key=jax.random.fold_in(key, 2**31 - 1),
        n=n,
        batch_size=batch_size,
        progress=progress,
    )


def _check_images(images, denoiser):
    known = denoiser.image_shape
    channels = images.shape[-1] if known is None else known[-1]
    if images.ndim != 4 or 0 in images.shape or images.shape[-1] != channels:
        raise ValueError(f"images: expected [N, H, W, {channels}], got {list(images.shape)}")
    if images.dtype.kind != "f" or not (images.min() >= 0 and images.max() <= 1):
        raise ValueError("images: expected floats in [0, 1]")


def _levels(schedule: Schedule, count: int) -> Level:
    """About `count` levels from the least noisy to the noisiest, evenly spaced in log-SNR."""
    at = schedule.level(schedule.training_times)
    a = np.clip(at.signal, 1e-6, 1 - 1e-6)
    snr = np.log(a / (1 - a))
    wanted = np.linspace(snr[0], snr[-1], count)
    chosen = np.unique([int(np.abs(snr - w).argmin()) for w in wanted])
    return Level(*(np.asarray(field)[chosen] for field in at))


def _ring_weights(size, spacing) -> np.ndarray:
    """[R, H, W//2 + 1]: the mean over frequencies near each ring, weighted by 1 − distance."""
    place = radius(*size) / spacing
    rings = np.arange(int(np.ceil(place.max())) + 1)[:, None, None]
    weights = np.maximum(1 - np.abs(place - rings), 0)
    weights = weights * half_weights(size[1])
    return weights / np.maximum(weights.sum((1, 2), keepdims=True), 1e-12)


def radius(height: int, width: int) -> np.ndarray:
    """Of the frequencies of `rfft2`, in cycles a pixel."""
    return np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
