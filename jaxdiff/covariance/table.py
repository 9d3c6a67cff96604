"""How wrong a denoiser is: the covariance of x₀ given x_t, by frequency, colour and contrast."""

import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tqdm.auto import tqdm

from jaxdiff.checkpoints.sources import find_file
from jaxdiff.linalg import small_matrices as matrices
from jaxdiff.linalg.fields import Modulated, Stationary, contrast, half_weights
from jaxdiff.samplers.ddpm import DDPM
from jaxdiff.sampling import sample
from jaxdiff.units import to_model
from jaxdiff.util.files import replace_file
from jaxdiff.util.platform import jit, over_samples
from jaxdiff.util.pytree import concrete, pytree

FILE = "spectral_covariance.safetensors"
EXPONENTS = np.linspace(0, 0.6, 13, dtype=np.float32)  # of the contrast: which of them is measured
# By how much an exponent must lower −2·log-likelihood, a pixel, to be taken instead of 0: faces64
# gains 0.08 to 0.13 at t = 20 to 300, and less than this above t = 600, where conjugate gradients
# would take as many iterations for it.
WORTH = 0.02
STABLE = 64  # images: at frequency 0 an image has one value, and 64 of them err by √(2/64) = 18 %


@pytree
class SpectralCovariance:
    """Cov[x₀ | x_t] of a network: stationary, times a deviation that follows the contrast of x̂₀.

    The error e = x₀ − x̂₀(x_t), measured on images, is larger where x̂₀ has edges and texture. With
    g = |∇x̂₀|² blurred by a pixel (`stationary.contrast` is its logarithm),

        Cov[x₀ | x_t] = MΣM,  M = diag(m),  m² = exp(γ·(log g − mean of log g)),

    γ by noise level, where the likelihood of e ~ N(0, m²) is highest, and 0 where it hardly
    matters. `table[l, r]` is Σ: the mean over images, noise, and the frequencies of ring r, of the
    transform of e/m times its conjugate (orthonormal FFT, real part), divided by 1 − ᾱ_l, which
    makes it vary slowly. `at` interpolates its inverse linearly in ᾱ, which is exact for a Gaussian
    prior, and what comes out linearly in radius. It does not depend on the image's size.

    Args:
        table: [L, R, C, C], symmetric, in units of the network's [-1, 1].
        timesteps: [L], ascending; alphas_cumprod: [L], ᾱ of the schedule at them.
        spacing: of the rings, in cycles a pixel: ring r is at radius r·spacing.
        modulation: [L, 2], γ and the mean of log g; None where Σ alone is meant: m = 1.

    Raises:
        ValueError: for arrays that do not fit each other, or hold NaN.

    Source: the covariance that Peng et al. 2024 (arXiv 2402.02149) show to be the optimal one to
    condition with, restricted to these; Rissanen et al. 2025 (arXiv 2410.11149) use a diagonal in
    the DCT, without colours. The contrast is our own.

    Example:
        >>> covariance = SpectralCovariance.load("faces64")
        >>> covariance.at(jnp.zeros((64, 64, 3)), 0.5).matrices.shape
        (64, 33, 3, 3)
    """

    table: Any
    timesteps: Any
    alphas_cumprod: Any
    spacing: Any
    modulation: Any = None

    def __post_init__(self):
        for name, value in self._arrays().items():
            object.__setattr__(self, name, np.asarray(value))
        levels, channels = len(self.timesteps), self.table.shape[-1]
        if self.table.ndim != 4 or self.table.shape[::2] != (levels, channels) or levels < 2:
            raise ValueError(
                f"table: expected [L, R, C, C] for {levels} noise levels, "
                f"got {list(self.table.shape)}"
            )
        if self.modulation is not None and self.modulation.shape != (levels, 2):
            raise ValueError(
                f"modulation: expected [L, 2] for {levels} noise levels, got "
                f"{list(self.modulation.shape)}"
            )
        for name in ("table", "modulation"):
            if not np.isfinite(self._arrays().get(name, 0)).all():
                raise ValueError(f"{name}: holds NaN or infinite values")

    def _arrays(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if value is not None}

    @property
    def channels(self) -> int:
        """C."""
        return self.table.shape[-1]

    @property
    def stationary(self) -> bool:
        """Whether it is a matrix a frequency, the same for every x_t."""
        return self.modulation is None

    def at(self, x_t, alphas_cumprod, x0_hat=None) -> Stationary | Modulated:
        """At the noise level ᾱ, for images of x_t's size [H, W, C]; Σ alone without an x̂₀."""
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
        colours = (1 - a) * _between(rings, radius)
        if self.modulation is None or x0_hat is None:
            return Stationary(colours)
        modulation = jnp.asarray(self.modulation, dtype)[::-1]
        exponent, mean = (1 - part) * modulation[low] + part * modulation[low + 1]
        scale = jnp.exp(exponent / 2 * (contrast(x0_hat) - mean))
        return Modulated(scale[..., None], colours)

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

        Once for every γ of a grid, from which the likelihood then takes one a level.

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
        total: Any = None
        with tqdm(total=len(images), unit="image", disable=not progress) as bar:
            for start in range(0, len(images), batch_size):
                # The last batch is filled up with repeats.
                chosen = np.minimum(np.arange(start, start + batch_size), len(images) - 1)
                keys = jax.vmap(jax.random.fold_in, (None, 0))(key, chosen)
                found = _errors(denoiser, images[chosen], keys, timesteps, rings)
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
        a = schedule.alphas_cumprod[timesteps]
        table = table / (1 - a)[:, None, None, None]
        modulated = modulation.astype(np.float32) if modulation[:, 0].any() else None
        return cls(table.astype(np.float32), timesteps, a, spacing, modulated)

    def save(self, folder: str | Path) -> Path:
        """Write `spectral_covariance.safetensors` into a checkpoint's folder; returns its path."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        # In C's order: safetensors writes the memory of any other as it lies.
        tensors = {name: np.asarray(a, order="C") for name, a in self._arrays().items()}
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
def _errors(denoiser, images, keys, timesteps, rings):
    """Of images [n, H, W, C] in [0, 1], at L levels, for every exponent γ of the contrast g:

    the rings' mean of ê ê* of e·g^(−γ/2) [n, L, γ, R, C, C], the mean square of that [n, L, γ],
    and the mean of log g [n, L].
    """

    def one(image, key):
        x0 = to_model(image)

        def level(t):
            eps = jax.random.normal(jax.random.fold_in(key, t), x0.shape, x0.dtype)
            x0_hat = denoiser(denoiser.schedule.add_noise(x0, eps, t).astype(x0.dtype), t)
            log_g = contrast(x0_hat)

            def power(exponent):
                error = (x0 - x0_hat) * jnp.exp(-exponent / 2 * log_g)[..., None]
                e = jnp.fft.rfft2(error, axes=(0, 1), norm="ortho")
                square = (e[..., :, None] * jnp.conj(e[..., None, :])).real
                highest = jax.lax.Precision.HIGHEST
                of_rings = jnp.einsum("rhw,hwcd->rcd", rings, square, precision=highest)
                return of_rings, jnp.mean(error**2)

            return *jax.lax.map(power, jnp.asarray(EXPONENTS, dtype)), log_g.mean()

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
    weights = weights * half_weights(size[1])
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
