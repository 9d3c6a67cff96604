"""The course's data set: images, each degraded with a kernel and a noise level of its own."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxdiff.data.images import faces, fit, read_fitted
from jaxdiff.data.kernels import load_kernels, motion_kernel
from jaxdiff.data.sources import find, find_images
from jaxdiff.operators import Blur
from jaxdiff.util.names import printable


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A clean image [H, W, C] in [0, 1], how it was degraded, and what was measured, y [H, W, C]."""

    name: str
    image: np.ndarray
    kernel: np.ndarray
    sigma: float
    y: np.ndarray


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Degraded images, as the course draws them: y = k * x + σ·n.

    For image i a kernel k and a noise level σ are drawn at random, and n from N(0, 1); the blur is
    circular and the kernel, padded with zeros to 33×33 around its middle, is not normalised. All
    draws of item i come from the seed and i alone. Kernels larger than 33 are not padded.

    Args:
        images: by name, [H, W, C] float32 in [0, 1].
        kernels: [h, w] each.
        sigmas: noise levels in image units.
        seed: of all draws.

    Raises:
        ValueError: for no images, no kernels or no noise levels.

    Example:
        >>> dataset = course_dataset(seed=1)
        >>> len(dataset), dataset[0].y.shape, dataset[0].kernel.shape
        (8, (64, 64, 3), (33, 33))
    """

    images: Mapping[str, np.ndarray]
    kernels: Sequence[np.ndarray]
    sigmas: Sequence[float] = (5 / 255, 10 / 255, 20 / 255)
    seed: int = 0

    def __post_init__(self):
        for field in ("images", "kernels", "sigmas"):
            if not len(getattr(self, field)):
                raise ValueError(f"{field}: expected at least one")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Measurement:
        name = list(self.images)[index]
        image = self.images[name]
        rng = np.random.default_rng([self.seed, range(len(self))[index]])
        kernel = self.kernels[int(rng.integers(len(self.kernels)))]
        kernel = _pad_centrally(kernel, min(33, *image.shape[:2]))
        sigma = float(self.sigmas[int(rng.integers(len(self.sigmas)))])
        y = np.asarray(Blur(kernel, (image.shape[0], image.shape[1]))(image))
        y = y + sigma * rng.standard_normal(image.shape)
        return Measurement(name, image, kernel, sigma, y.astype(np.float32))


def _pad_centrally(kernel: np.ndarray, size: int) -> np.ndarray:
    """Zeros around a kernel, its middle ⌊size/2⌋ staying the middle."""
    before = [max(size // 2 - s // 2, 0) for s in kernel.shape]
    after = [max(size - s - b, 0) for s, b in zip(kernel.shape, before)]
    return np.pad(np.asarray(kernel, np.float64), list(zip(before, after)))


def course_dataset(
    root: str | Path | None = None,
    size: int = 64,
    seed: int = 0,
    how: str | None = "resize",
    channels: int = 3,
) -> Dataset:
    """The course's data set from its folder, or from what is bundled.

    Args:
        root: a folder with images and a .mat of kernels, each in it or in folders below it;
            without a .mat the kernels are generated. None: `faces()` and generated kernels.
        size: images are brought to [size, size] by `how` (see `fit`).
        seed: of the draws.
        channels: 3, or 1 for grey images; the bundled ones become grey.

    Raises:
        ValueError: for a folder without images, an image that can't be read, or kernels that can't.

    Example:
        >>> sorted({m.sigma for m in map(course_dataset(seed=3).__getitem__, range(8))})[-1] <= 20 / 255
        True
    """
    widths = (min(width, size) for width in (9, 11, 13, 15, 17))
    generated = [motion_kernel(width, seed=i) for i, width in enumerate(widths)]
    if root is None:
        images = {name: fit(image, (size, size), how) for name, image in faces().items()}
        if channels == 1:
            luma = np.array([0.299, 0.587, 0.114], np.float32)  # of ITU-R BT.601, as Pillow's
            images = {name: (image @ luma)[..., None] for name, image in images.items()}
        return Dataset(images, generated, seed=seed)
    images = {
        printable(p.relative_to(root)): read_fitted(p, p, (size, size), how, channels)
        for p in find_images(root)
    }
    mats = find(root, ".mat")
    return Dataset(images, load_kernels(mats[0]) if mats else generated, seed=seed)
