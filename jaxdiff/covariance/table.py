"""How wrong a denoiser is: the covariance of x₀ given x_t, by frequency, colour and contrast."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from jaxdiff.checkpoints.sources import find_file
from jaxdiff.covariance.measure import measure, radius
from jaxdiff.denoiser import as_prior
from jaxdiff.linalg import small_matrices
from jaxdiff.linalg.fields import Modulated, Stationary, contrast
from jaxdiff.schedules import Level
from jaxdiff.util.arrays import Array, Number
from jaxdiff.util.files import replace_file
from jaxdiff.util.pytree import concrete, field, pytree

FILE = "spectral_covariance.safetensors"


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
        table: [L, R, C, C], symmetric, in units of the prior's states.
        timesteps: [L], times of the schedule, the least noisy first; alphas_cumprod: [L], ᾱ at them,
            under any schedule the ᾱ of the same signal-to-noise ratio.
        spacing: of the rings, in cycles a pixel: ring r is at radius r·spacing.
        modulation: [L, 2], γ and the mean of log g; None where Σ alone is meant: m = 1.
        weights: [2, 16], the `digest` of the denoiser it was measured on; None where nobody knows.

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

    table: Array = field(converter=np.asarray)
    timesteps: Array = field(converter=np.asarray)
    alphas_cumprod: Array = field(converter=np.asarray)
    spacing: Number = field(converter=np.asarray)
    modulation: Array | None = field(
        default=None, converter=lambda m: None if m is None else np.asarray(m)
    )
    weights: Array | None = field(
        default=None, converter=lambda w: None if w is None else np.asarray(w)
    )

    def __post_init__(self):
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
        if self.weights is not None and (self.weights.shape, self.weights.dtype) != ((2, 16), "u1"):
            raise ValueError(
                f"weights: expected a denoiser's digest, [2, 16] bytes, got "
                f"{self.weights.dtype}{list(self.weights.shape)}"
            )
        for name in ("table", "modulation"):
            if not np.isfinite(self._arrays().get(name, 0)).all():
                raise ValueError(f"{name}: holds NaN or infinite values")
        if not (np.shape(self.spacing) == () and 1e-6 <= self.spacing <= 1):
            raise ValueError(f"spacing: expected cycles a pixel, in [1e-6, 1], got {self.spacing}")
        if not np.linalg.eigvalsh(np.asarray(self.table, np.float64)).min() > 0:
            raise ValueError("table: holds a matrix that is not positive definite")

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

    def at(self, x_t, at: Level | Any, x0_hat=None) -> Stationary | Modulated:
        """At a level, or its ᾱ, for states of x_t's size [H, W, C]; Σ alone without an x̂₀."""
        dtype = x_t.dtype
        at = Level.of(at)
        a, noise = jnp.asarray(at.signal, dtype), jnp.asarray(at.noise, dtype)
        levels = jnp.asarray(self.alphas_cumprod, dtype)[::-1]  # ascending
        low = jnp.clip(jnp.searchsorted(levels, a) - 1, 0, len(levels) - 2)
        part = jnp.clip((a - levels[low]) / (levels[low + 1] - levels[low]), 0, 1)
        table = jnp.asarray(self.table, dtype)[::-1]
        identity = jnp.broadcast_to(jnp.eye(self.channels, dtype=dtype), table.shape[1:])
        precision = (1 - part) * small_matrices.solve(table[low], identity)
        precision += part * small_matrices.solve(table[low + 1], identity)
        rings = small_matrices.solve(precision, identity)
        place = jnp.asarray(radius(*x_t.shape[:2]), dtype) / jnp.asarray(self.spacing, dtype)
        colours = noise * _between(rings, place)
        if self.modulation is None or x0_hat is None:
            return Stationary(colours)
        modulation = jnp.asarray(self.modulation, dtype)[::-1]
        exponent, mean = (1 - part) * modulation[low] + part * modulation[low + 1]
        scale = jnp.exp(exponent / 2 * (contrast(x0_hat) - mean))
        return Modulated(scale[..., None], colours)

    def check(self, denoiser) -> None:
        """Raises ValueError where the table is not of such a denoiser."""
        if denoiser.shape is not None and denoiser.shape[-1] != self.channels:
            raise ValueError(
                f"covariance: a table of {self.channels} channels, the prior has "
                f"{denoiser.shape[-1]}: measure its own (jaxdiff calibrate)"
            )
        if self.weights is not None and concrete((self, denoiser)):
            digest = denoiser.digest
            if digest is not None and not (digest == self.weights).all(-1).any():
                raise ValueError(
                    f"covariance: {FILE} was measured on other weights than the prior's: measure it "
                    "again (jaxdiff calibrate), or remove it"
                )
        schedule = denoiser.schedule
        if schedule is None or not concrete((self, schedule)):
            return
        try:  # times of another schedule may be none of this one
            with np.errstate(all="ignore"):
                known = schedule.level(self.timesteps).signal
        except IndexError:
            known = np.nan
        if not np.allclose(known, self.alphas_cumprod, rtol=1e-4):
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
                steps, which take longer than measuring on them.
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
        found = measure(
            as_prior(denoiser),
            images,
            key,
            n=n,
            levels=levels,
            batch_size=batch_size,
            progress=progress,
        )
        return cls(**found)

    def save(self, folder: str | Path) -> Path:
        """Write `spectral_covariance.safetensors` into a checkpoint's folder; returns its path.

        Beside a checkpoint that is a file, PRIOR.pt, it is `PRIOR.spectral_covariance.safetensors`.
        """
        path = table_path(Path(folder))
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, self.write)
        return path

    def write(self, path: str | Path) -> None:
        """Write the file itself."""
        # In C's order: safetensors writes the memory of any other as it lies.
        save_file({name: np.asarray(a, order="C") for name, a in self._arrays().items()}, path)

    @classmethod
    def load(cls, source: str | Path) -> "SpectralCovariance":
        """Read the table of a checkpoint: "faces64", a folder, a file, or a hub id.

        Raises:
            FileNotFoundError: where it has none; ValueError: for a damaged file.
        """
        if (found := cls.find(source)) is None:
            raise FileNotFoundError(
                f"{source}: has no {FILE}: measure it with jaxdiff calibrate, or "
                "SpectralCovariance.estimate(denoiser, images, key=key).save(folder)"
            )
        return found

    @classmethod
    def find(cls, source: str | Path) -> "SpectralCovariance | None":
        """The same, None where the checkpoint has no table.

        Raises:
            ValueError: for a damaged file.
        """
        if Path(source).is_file():
            path = beside if (beside := table_path(Path(source))).is_file() else None
        else:
            path = find_file(source, FILE)
        if path is None:
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                return cls(**{name: file.get_tensor(name) for name in file.keys()})
        except (SafetensorError, TypeError, ValueError) as e:
            raise ValueError(f"{path}: not a table of spectral covariances ({e})") from e


def table_path(checkpoint: Path) -> Path:
    """Where the table of a checkpoint lies: in its folder, or beside its file."""
    if checkpoint.is_file():
        return checkpoint.with_name(f"{checkpoint.stem}.{FILE}")
    return checkpoint / FILE


def _between(values, place):
    """Linear interpolation in the first axis of `values`, constant outside."""
    place = jnp.clip(place, 0, len(values) - 1)
    low = jnp.minimum(jnp.floor(place).astype(int), len(values) - 2)
    part = (place - low).reshape(*place.shape, *[1] * (values.ndim - 1))
    return (1 - part) * values[low] + part * values[low + 1]
