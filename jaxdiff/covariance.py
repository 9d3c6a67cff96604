"""How wrong a denoiser is: the covariance of x₀ given x_t, by spatial frequency and colour."""

import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tqdm.auto import tqdm

from jaxdiff import matrices
from jaxdiff.checkpoint import find_file, replace_file
from jaxdiff.platform import jit, over_samples
from jaxdiff.pytree import concrete, pytree
from jaxdiff.samplers.ddpm import DDPM
from jaxdiff.sampling import sample
from jaxdiff.stationary import Stationary
from jaxdiff.units import to_model

FILE = "spectral_covariance.safetensors"
STABLE = 64  # images: at frequency 0 an image has one value, and 64 of them err by √(2/64) = 18 %


@pytree
class SpectralCovariance:
    """Cov[x₀ | x_t] of a network, taken as stationary: a colour matrix by noise level and radius.

    E[e eᵀ] of the error e = x₀ − x̂₀(x_t), measured on images: `table[l, r]` is the mean over
    images, noise, and the frequencies of ring r, of ê ê* (orthonormal FFT, real part), divided by
    1 − ᾱ_l, which makes it vary slowly. `at` interpolates its inverse linearly in ᾱ, which is exact
    for a Gaussian prior, and what comes out linearly in radius.
    It does not depend on the image's size.

    Args:
        table: [L, R, C, C], symmetric, in units of the network's [-1, 1].
        timesteps: [L], ascending; alphas_cumprod: [L], ᾱ of the schedule at them.
        spacing: of the rings, in cycles a pixel: ring r is at radius r·spacing.

    Source: the covariance that Peng et al. 2024 (arXiv 2402.02149) show to be the optimal one to
    condition with, restricted to stationary ones; Rissanen et al. 2025 (arXiv 2410.11149) use a
    diagonal in the DCT, without colours.

    Example:
        >>> covariance = SpectralCovariance.load("faces64")
        >>> covariance.at(jnp.zeros((64, 64, 3)), 0.5).matrices.shape
        (64, 33, 3, 3)
    """

    table: Any
    timesteps: Any
    alphas_cumprod: Any
    spacing: Any
    stationary = True

    def __post_init__(self):
        for name in ("table", "timesteps", "alphas_cumprod", "spacing"):
            object.__setattr__(self, name, np.asarray(getattr(self, name)))
        levels, channels = len(self.timesteps), self.table.shape[-1]
        if self.table.ndim != 4 or self.table.shape[::2] != (levels, channels) or levels < 2:
            raise ValueError(
                f"table: expected [L, R, C, C] for {levels} noise levels, "
                f"got {list(self.table.shape)}"
            )
        if not np.isfinite(self.table).all():
            raise ValueError("table: holds NaN or infinite values")

    @property
    def channels(self) -> int:
        """C."""
        return self.table.shape[-1]

    def at(self, x_t, alphas_cumprod) -> Stationary:
        """Σ at the noise level ᾱ, for images of x_t's size [H, W, C]; the same for every x_t."""
        dtype = x_t.dtype
        a = jnp.asarray(alphas_cumprod, dtype)
        levels = jnp.asarray(self.alphas_cumprod, dtype)[::-1]  # ascending
        low = jnp.clip(jnp.searchsorted(levels, a) - 1, 0, len(levels) - 2)
        part = jnp.clip((a - levels[low]) / (levels[low + 1] - levels[low]), 0, 1)
        table = jnp.asarray(self.table, dtype)[::-1]
        identity = jnp.broadcast_to(jnp.eye(self.channels, dtype=dtype), table.shape[1:])
        precision = (1 - part) * matrices.solve(table[low], identity)
        precision += part * matrices.solve(table[low + 1], identity)
        rings = matrices.solve(precision, identity)
        radius = jnp.asarray(_radius(*x_t.shape[:2]), dtype) / jnp.asarray(self.spacing, dtype)
        return Stationary((1 - a) * _between(rings, radius))

    def check(self, denoiser) -> None:
        """Raises ValueError where the table is not of such a denoiser."""
        shape = getattr(denoiser, "shape", None)
        if shape is not None and shape[-1] != self.channels:
            raise ValueError(
                f"covariance: a table of {self.channels} channels, the prior has {shape[-1]}: "
                "measure its own (jaxdiff calibrate)"
            )
        schedule = getattr(denoiser, "schedule", None)
        if schedule is None or not concrete((self, schedule)):
            return
        known = np.asarray(schedule.alphas_cumprod)
        fits = self.timesteps.max() < len(known) and np.allclose(
            known[self.timesteps], self.alphas_cumprod, rtol=1e-4
        )
        if not fits:
            raise ValueError(
                "covariance: measured with another noise schedule than the prior's: measure it "
                "again (jaxdiff calibrate)"
            )

    @classmethod
    def estimate(
        cls,
        denoiser,
        images=None,
        *,
        key,
        n: int | None = None,
        levels: int = 25,
        batch_size: int = 8,
        progress: bool = False,
    ) -> "SpectralCovariance":
        """Measure it: each image is noised to every level, denoised, and its error transformed.

        Args:
            denoiser: of the prior; images: [N, H, W, C] in [0, 1] that the prior should know, of
                which the first n are used. Without any, n of the prior's own DDPM samples of 100
                steps, which take four times as long as measuring on them.
            key: of the noise.
            n: by default all images, or 64 samples.
            levels: noise levels, evenly spaced in log-SNR.
            batch_size: images at once.
            progress: show a bar.

        Raises:
            ValueError: for images of another shape or range. Warns below 64 images, where the
                lowest frequencies, of which an image has few, are not stable.

        Example:
            >>> import jax, jaxdiff as jd
            >>> prior = jd.priors.Gaussian(np.full((8, 8), 0.1), jd.Schedule.from_config())
            >>> x = np.full((64, 8, 8, 1), 0.5)
            >>> SpectralCovariance.estimate(prior, x, key=jax.random.key(0), levels=3).table.shape
            (3, 7, 1, 1)
        """
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
        timesteps = _timesteps(schedule.alphas_cumprod, levels)
        spacing = 1 / max(images.shape[1:3])
        rings = _ring_weights(images.shape[1:3], spacing)
        powers = []
        with tqdm(total=len(images), unit="image", disable=not progress) as bar:
            for start in range(0, len(images), batch_size):
                # The last batch is filled up with repeats.
                chosen = np.minimum(np.arange(start, start + batch_size), len(images) - 1)
                keys = jax.vmap(jax.random.fold_in, (None, 0))(key, chosen)
                found = np.asarray(_error_powers(denoiser, images[chosen], keys, timesteps, rings))
                powers.append(found[: len(images) - start])
                bar.update(len(powers[-1]))
        table = np.concatenate(powers).mean(0, dtype=np.float64)
        # Positive definite, also from fewer images than channels.
        mean = np.trace(table, axis1=-2, axis2=-1)[..., None, None] / table.shape[-1]
        table = table + 1e-5 * mean * np.eye(table.shape[-1])
        a = schedule.alphas_cumprod[timesteps]
        table = table / (1 - a)[:, None, None, None]
        return cls(table.astype(np.float32), timesteps, a, spacing)

    def save(self, folder: str | Path) -> Path:
        """Write `spectral_covariance.safetensors` into a checkpoint's folder; returns its path."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: np.asarray(value) for name, value in vars(self).items()}
        replace_file(folder / FILE, lambda p: save_file(tensors, p))
        return folder / FILE

    @classmethod
    def load(cls, source: str | Path) -> "SpectralCovariance":
        """Read the table of a checkpoint: "faces64", a folder, or a hub id.

        Raises:
            FileNotFoundError: where it has none; ValueError: for a damaged file.
        """
        path = find_file(source, FILE)
        if path is None:
            raise FileNotFoundError(
                f"{source}: has no {FILE}: measure it with jaxdiff calibrate, or "
                "SpectralCovariance.estimate(denoiser, images, key=key).save(folder)"
            )
        try:
            with safe_open(path, framework="numpy") as file:
                return cls(**{name: file.get_tensor(name) for name in file.keys()})
        except (SafetensorError, TypeError) as e:
            raise ValueError(f"{path}: not a table of spectral covariances ({e})") from e


@jit
def _error_powers(denoiser, images, keys, timesteps, rings):
    """[n, L, R, C, C]: the rings' mean of ê ê* for images [n, H, W, C] in [0, 1]."""

    def one(image, key):
        x0 = to_model(image)

        def level(t):
            eps = jax.random.normal(jax.random.fold_in(key, t), x0.shape, x0.dtype)
            error = x0 - denoiser(denoiser.schedule.add_noise(x0, eps, t).astype(x0.dtype), t)
            e = jnp.fft.rfft2(error, axes=(0, 1), norm="ortho")
            power = (e[..., :, None] * jnp.conj(e[..., None, :])).real
            return jnp.einsum("rhw,hwcd->rcd", rings, power, precision=jax.lax.Precision.HIGHEST)

        return jax.lax.map(level, timesteps)

    dtype = getattr(denoiser, "dtype", jnp.result_type(float))
    rings = jnp.asarray(rings, dtype)
    return over_samples(one)(jnp.asarray(images, dtype), keys)


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
    shape = getattr(denoiser, "shape", None)
    channels = images.shape[-1] if shape is None else shape[-1]
    if images.ndim != 4 or 0 in images.shape or images.shape[-1] != channels:
        raise ValueError(f"images: expected [N, H, W, {channels}], got {list(images.shape)}")
    if images.dtype.kind != "f" or not (images.min() >= 0 and images.max() <= 1):
        raise ValueError("images: expected floats in [0, 1]")


def _timesteps(alphas_cumprod, levels: int) -> np.ndarray:
    """About `levels` timesteps from the first to the last, evenly spaced in log-SNR."""
    a = np.clip(alphas_cumprod, 1e-6, 1 - 1e-6)
    snr = np.log(a / (1 - a))
    wanted = np.linspace(snr[0], snr[-1], levels)
    return np.unique([int(np.abs(snr - w).argmin()) for w in wanted])


def _ring_weights(size, spacing) -> np.ndarray:
    """[R, H, W//2 + 1]: the mean over frequencies near each ring, weighted by 1 − distance."""
    radius = _radius(*size) / spacing
    rings = np.arange(int(np.ceil(radius.max())) + 1)[:, None, None]
    weights = np.maximum(1 - np.abs(radius - rings), 0)
    twice = np.full(radius.shape[1], 2.0)  # rfft2 leaves out the conjugates
    twice[0] = 1
    if size[1] % 2 == 0:
        twice[-1] = 1
    weights = weights * twice
    return weights / np.maximum(weights.sum((1, 2), keepdims=True), 1e-12)


def _radius(height: int, width: int) -> np.ndarray:
    """Of the frequencies of `rfft2`, in cycles a pixel."""
    return np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))


def _between(values, place):
    """Linear interpolation in the first axis of `values`, constant outside."""
    place = jnp.clip(place, 0, len(values) - 1)
    low = jnp.minimum(jnp.floor(place).astype(int), len(values) - 2)
    part = (place - low).reshape(*place.shape, *[1] * (values.ndim - 1))
    return (1 - part) * values[low] + part * values[low + 1]
