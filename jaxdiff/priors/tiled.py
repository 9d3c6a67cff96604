"""A denoiser of images of any size from one of a fixed size, and of any size to whole multiples."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.denoiser import Denoiser, Prediction, Prior, as_prior
from jaxdiff.operators import Crop, Operator
from jaxdiff.schedules import Level
from jaxdiff.util.arrays import Array
from jaxdiff.util.pytree import field, pytree, static

# What a network takes in one piece: more is cut into windows.
PIXELS = 1024**2
TOKENS = 64**2


class Around(Prior):
    """A prior that is another one at another size: all else is that one's."""

    denoiser: Any

    @property
    def schedule(self) -> Any:
        """The denoiser's."""
        return self.denoiser.schedule

    @property
    def digest(self) -> Any:
        """The denoiser's."""
        return self.denoiser.digest

    @property
    def decode(self) -> Any:
        """The denoiser's."""
        return self.denoiser.decode

    @property
    def dtype(self) -> Any:
        """The denoiser's."""
        return self.denoiser.dtype

    @property
    def independent(self) -> bool:
        """The denoiser's."""
        return self.denoiser.independent


@pytree
class Tiled(Around):
    """x̂₀ of an image of any size, by overlapping windows of a size that the network can take.

    x̂₀ = Σ_k w_k·D(x_t[window k], t): the w_k fall towards the windows' edges as sin², and sum to one
    at every pixel. The grid of windows is shifted by an offset that follows from t, so that no seam
    of one step stays in the next. The windows are mapped one after the other: memory grows with the
    image, and not with the network's activations on it. A network that predicts variances is asked
    for x̂₀ alone.

    Args:
        denoiser: a prior that takes states of `window`.
        size: (H, W) of the states.
        window: pixels of a window's side, cut to the size where that is smaller.
        overlap: pixels that two windows share at least, from 0 to window − 1.

    Raises:
        ValueError: for an overlap that is none.

    Source: MultiDiffusion (Bar-Tal et al. 2023, arXiv 2302.08113) averages windows of a fixed grid
    with equal weights; the offset that follows from the level is our own.

    Example:
        >>> import jaxdiff as jd
        >>> tiled = Tiled(jd.Denoiser(*jd.load("faces64")), (96, 160), window=64)
        >>> jax.eval_shape(tiled, jnp.zeros((96, 160, 3)), 500).shape
        (96, 160, 3)
    """

    denoiser: Prior = field(converter=as_prior)
    size: tuple[int, int] = static(converter=lambda size: (int(size[0]), int(size[1])))
    window: int = static(default=128)
    overlap: int = static(default=32)

    def __post_init__(self):
        if not 0 <= self.overlap < self.window:
            raise ValueError(
                f"overlap: expected pixels from 0 to {self.window - 1}, got {self.overlap!r}"
            )

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """[H, W, C] of a state."""
        known = self.denoiser.shape
        return None if known is None else (*self.size, known[-1])

    def __call__(self, x, at) -> jax.Array:
        """x̂₀ of x_t [..., H, W, C] at a level or a timestep."""
        at = self.level(at)
        rows, columns = (self._axis(axis, at) for axis in (0, 1))
        starts = jnp.stack(jnp.meshgrid(rows[0], columns[0], indexing="ij"), -1).reshape(-1, 2)
        weight = (rows[1][:, None] * columns[1])[..., None].astype(x.dtype)
        total = (rows[2][:, None] * columns[2])[..., None].astype(x.dtype)
        lead, shape = (0,) * (x.ndim - 3), (*x.shape[:-3], *weight.shape[:2], x.shape[-1])

        @jax.checkpoint
        def add(found, start):
            place = (*lead, start[0], start[1], 0)
            one = weight * self.denoiser(jax.lax.dynamic_slice(x, place, shape), at)
            before = jax.lax.dynamic_slice(found, place, shape)
            return jax.lax.dynamic_update_slice(found, before + one, place), None

        found, _ = jax.lax.scan(add, jnp.zeros_like(x), starts)
        return found / total

    def _axis(self, axis: int, at: Level) -> tuple[Array, Array, Array]:
        """Along an axis: where the windows start, their weights, and the sum of those at each pixel."""
        size = self.size[axis]
        window = min(self.window, size)
        stride = max(window - self.overlap, 1)
        # At every offset: the last window reaches the end.
        count = 1 if window == size else 1 - (window - size - stride + 1) // stride
        # Irrational steps: the offsets of successive times, which may be negative, are far apart.
        offset = jnp.floor(stride * (jnp.asarray(at.t) * (0.61803, 0.41421)[axis] % 1))
        starts = stride * jnp.arange(count) - offset.astype(jnp.int32)
        starts = jnp.clip(starts, 0, size - window)
        edge = jnp.minimum(jnp.arange(window), jnp.arange(window)[::-1]) + 0.5
        weights = jnp.sin(jnp.pi / 2 * jnp.minimum(edge / max(self.overlap, 1), 1)) ** 2
        places = starts[:, None] + jnp.arange(window)
        total = jnp.zeros(size).at[places].add(jnp.broadcast_to(weights, places.shape))
        return starts, weights, total


@pytree
class Padded(Around):
    """A prior of images of any size, from one whose states have sides of whole multiples.

    The states have a margin that is part of no image: `decode` cuts it off, a measurement says
    nothing of it, and the prior fills it.

    Args:
        denoiser: a prior that takes states of whole multiples.
        size: (H, W) of the images.
        multiple: of what a state's sides are multiples.

    Example:
        >>> import jaxdiff as jd
        >>> padded = Padded(jd.Denoiser(*jd.load("faces64")), (100, 75), multiple=8)
        >>> padded.shape, padded.image(jnp.zeros(padded.shape)).shape
        ((104, 80, 3), (100, 75, 3))
    """

    denoiser: Prior = field(converter=as_prior)
    size: tuple[int, int] = static(converter=lambda size: (int(size[0]), int(size[1])))
    multiple: int = static(default=1)

    @property
    def _margin(self):
        margins = [-length % self.multiple for length in self.size]
        return tuple((m // 2, m - m // 2) for m in margins)

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """[H, W, C] of a state: the margin included."""
        known = self.denoiser.shape
        return None if known is None else (*self.canvas, known[-1])

    @property
    def canvas(self) -> tuple[int, int]:
        """(H, W) of a state."""
        height, width = (n + sum(m) for n, m in zip(self.size, self._margin))
        return height, width

    @property
    def decode(self) -> Operator:
        """The denoiser's, and the margin cut off."""
        whole = self.denoiser.decode
        return Crop(self._margin) @ whole if np.any(self._margin) else whole

    def __call__(self, x, at) -> jax.Array:
        """x̂₀ of x_t [..., H, W, C] at a level or a timestep."""
        return self.denoiser(x, at)

    def predict(self, x, at: Level) -> Prediction:
        """All that the denoiser says."""
        return self.denoiser.predict(x, at)

    def state(self, image) -> jax.Array:
        """The state of an image, which goes on as its mirror image."""
        margins = [(0, 0)] * (image.ndim - 3) + [*self._margin, (0, 0)]
        return self.denoiser.state(jnp.pad(image, margins, mode="symmetric"))


def of_size(prior: Prior, size: Sequence[int]) -> Prior:
    """A network's prior for images of `size` (H, W); another prior as it is.

    One of latents is for images of its own size.

    The network runs on the whole image, padded to its multiple, while that is within `PIXELS` and
    its attention, which grows with the square of the tokens, within `TOKENS`; else in windows.

    Raises:
        ValueError: for a prior of latents, and images of another size than its own.

    Example:
        >>> import jaxdiff as jd
        >>> prior = jd.Denoiser(*jd.load("faces64"))
        >>> [type(of_size(prior, (n, n)).denoiser).__name__ for n in (200, 500)]
        ['Denoiser', 'Tiled']
    """
    if not isinstance(prior, Denoiser):
        return prior
    known = prior.image_shape
    if known is not None and known[:2] == tuple(size):
        return prior
    if known is not None and known != prior.shape:
        raise ValueError(
            f"the images are {size[0]}×{size[1]}: a prior of latents takes those of its own size, "
            f"{known[0]}×{known[1]}: --fit resize or --fit crop"
        )
    config = prior.network.config
    padded = Padded(prior, (size[0], size[1]), config.downsampling)
    stride = config.attention_stride
    side = int(min(PIXELS**0.5, (stride or PIXELS) * TOKENS**0.5))
    if np.prod(padded.canvas) <= side**2:
        return padded
    window = side // config.downsampling * config.downsampling
    return dataclasses.replace(padded, denoiser=Tiled(prior, padded.canvas, window, window // 4))
