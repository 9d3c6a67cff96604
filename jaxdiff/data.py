"""Images and kernels: read, made, and fitted to a prior's size."""

import dataclasses
import io
import itertools
import zipfile
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
import scipy.ndimage
from PIL import Image, ImageOps, UnidentifiedImageError

from jaxdiff.operators import Blur

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def example(size: int = 64) -> np.ndarray:
    """The bundled portrait, [size, size, 3] float32 in [0, 1], size at most 256.

    Astronaut Eileen Collins, NASA, public domain.

    Example:
        >>> example().shape
        (64, 64, 3)
    """
    path = Path(str(files("jaxdiff"))) / "assets" / "astronaut.png"
    return fit(read_image(path), (size, size), "resize")


def faces() -> dict[str, np.ndarray]:
    """Eight bundled photographs that the bundled prior was not trained on, by name.

    Each [64, 64, 3] float32 in [0, 1]: the first eight of the prior's validation set. FairFace
    (Kärkkäinen & Joo, WACV 2021), CC BY 4.0.

    Example:
        >>> len(faces()), faces()["0"].shape
        (8, (64, 64, 3))
    """
    folder = Path(str(files("jaxdiff"))) / "assets" / "faces"
    return {path.stem: read_image(path) for path in list_images(folder)}


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
    root: str | Path | None = None, size: int = 64, seed: int = 0, how: str | None = "resize"
) -> Dataset:
    """The course's data set from its folder, or from what is bundled.

    Args:
        root: a folder with images and a .mat of kernels, each in it or in folders below it;
            without a .mat the kernels are generated. None: `faces()` and generated kernels.
        size: images are brought to [size, size] by `how` (see `fit`).
        seed: of the draws.

    Raises:
        ValueError: for a folder without images, an image that can't be read, or kernels that can't.

    Example:
        >>> sorted({m.sigma for m in map(course_dataset(seed=3).__getitem__, range(8))})[-1] <= 20 / 255
        True
    """
    generated = [motion_kernel(width, seed=i) for i, width in enumerate((9, 11, 13, 15, 17))]
    if root is None:
        images = {name: fit(image, (size, size), how) for name, image in faces().items()}
        return Dataset(images, generated, seed=seed)
    below = [p for p in sorted(Path(root).rglob("*")) if p.is_file()]
    paths = [p for p in below if p.suffix.lower() in IMAGE_SUFFIXES]
    if not paths:
        raise ValueError(f"{root}: holds no images ({', '.join(IMAGE_SUFFIXES)})")
    images = {str(p.relative_to(root)): fit(read_image(p), (size, size), how) for p in paths}
    mats = [p for p in below if p.suffix == ".mat"]
    return Dataset(images, load_kernels(mats[0]) if mats else generated, seed=seed)


def read_image(path: str | Path | io.BytesIO, channels: int | None = 3) -> np.ndarray:
    """An image file as [H, W, channels] float32 in [0, 1]; None takes as many as it has.

    Raises:
        FileNotFoundError: where there is none.
        ValueError: for a file that can't be read as an image, or has other channels.
    """
    try:
        with Image.open(path) as image:
            # A palette is a way of storing colours, not another number of channels.
            image = image.convert("RGB") if image.mode == "P" else image
            bands = len(image.getbands())
            if channels is not None and bands != channels:
                raise ValueError(
                    f"{path}: has {bands} channels ({image.mode}), the prior has {channels}: "
                    f"convert it to {'RGB' if channels == 3 else 'greyscale'} first"
                )
            array = np.asarray(image)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such image") from None
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as e:
        raise ValueError(f"{path}: can't be read as an image, save it again ({e})") from e
    if array.dtype != np.uint8:
        raise ValueError(f"{path}: has {array.dtype} pixels, expected 8 bits a channel")
    return (array.reshape(*array.shape[:2], bands) / 255).astype(np.float32)


def load_images(
    source: str | Path, size: tuple[int, int], how: str | None = "resize", n: int | None = None
) -> np.ndarray:
    """The first n images of a folder, or of a packed .npz, as [N, H, W, 3] float32 in [0, 1].

    Args:
        source: a folder, searched with the folders below it, in order of names; or an .npz that
            holds JPEG or PNG bytes end to end in `train_bytes`, image i from `train_offsets[i]` to
            `train_offsets[i + 1]`.
        size, how: images of another size are brought to (height, width) as `fit` says.

    Raises:
        FileNotFoundError; ValueError: for a source without images, or one that can't be read.

    Example:
        >>> folder = Path(str(files("jaxdiff"))) / "assets" / "faces"
        >>> load_images(folder, (64, 64), n=3).shape
        (3, 64, 64, 3)
    """
    source = Path(source)
    if source.is_dir():
        every = (p for p in sorted(source.rglob("*")) if p.suffix.lower() in IMAGE_SUFFIXES)
        images = [fit(read_image(path), size, how) for path in itertools.islice(every, n)]
    elif source.is_file():
        try:
            with np.load(source, allow_pickle=False) as file:
                packed, offsets = file["train_bytes"].tobytes(), file["train_offsets"]
        except (KeyError, ValueError, OSError, zipfile.BadZipFile) as e:
            raise ValueError(
                f"{source}: expected an .npz with train_bytes and train_offsets"
            ) from e
        spans = itertools.islice(itertools.pairwise(offsets), n)
        images = [fit(read_image(io.BytesIO(packed[a:b])), size, how) for a, b in spans]
    else:
        raise FileNotFoundError(f"{source}: no such folder or .npz of images")
    if not images:
        raise ValueError(f"{source}: holds no images ({', '.join(IMAGE_SUFFIXES)})")
    return np.stack(images)


def to_uint8(image) -> np.ndarray:
    """[0, 1] → 0–255, rounded; what is 8 bits already is left alone."""
    if np.asarray(image).dtype == np.uint8:
        return np.asarray(image)
    return np.round(np.clip(np.asarray(image), 0, 1) * 255).astype(np.uint8)


def write_image(path: str | Path, image) -> None:
    """Save an image [H, W, 3] or [H, W, 1] in [0, 1] as PNG."""
    array = to_uint8(image)
    Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(path, format="PNG")


def list_images(folder: str | Path) -> list[Path]:
    """The image files of a folder, sorted by name.

    Raises:
        ValueError: where there are none.
    """
    paths = sorted(p for p in Path(folder).iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise ValueError(f"{folder}: holds no images ({', '.join(IMAGE_SUFFIXES)})")
    return paths


def fit(image: np.ndarray, size: tuple[int, int], how: str | None) -> np.ndarray:
    """Bring an image [H, W, C] to `size` (height, width), if it is not, the way that was chosen.

    Args:
        how: "resize" scales it to cover the size and cuts what stands out on two sides; "crop"
            takes the middle; None admits no other size.

    Raises:
        ValueError: for another size and no choice, or a crop from a smaller image.

    Example:
        >>> fit(np.zeros((100, 80, 3), np.float32), (64, 64), "crop").shape
        (64, 64, 3)
    """
    h, w = image.shape[:2]
    if (h, w) == tuple(size):
        return image
    if how == "resize":
        channels = [
            ImageOps.fit(Image.fromarray(c), (size[1], size[0]), Image.Resampling.LANCZOS)
            for c in np.moveaxis(image, -1, 0)
        ]
        return np.clip(np.stack([np.asarray(c) for c in channels], -1), 0, 1)
    if how == "crop" and h >= size[0] and w >= size[1]:
        top, left = (h - size[0]) // 2, (w - size[1]) // 2
        return image[top : top + size[0], left : left + size[1]]
    if how == "crop":
        raise ValueError(f"is {h}×{w}, too small to crop {size[0]}×{size[1]} from: resize it")
    raise ValueError(f"is {h}×{w}, the prior's images are {size[0]}×{size[1]}: resize or crop it")


def gaussian_kernel(size: int, std: float) -> np.ndarray:
    """A Gaussian [size, size] of standard deviation `std` pixels, sum 1.

    Example:
        >>> round(float(gaussian_kernel(5, 1.0).sum()), 6)
        1.0
    """
    if size < 1 or not std > 0:
        raise ValueError(f"gaussian kernel: expected size ≥ 1 and std > 0, got {size} and {std}")
    r = np.arange(size) - (size - 1) / 2
    kernel = np.exp(-(r[:, None] ** 2 + r[None] ** 2) / (2 * std**2))
    return kernel / kernel.sum()


def motion_kernel(size: int, seed: int) -> np.ndarray:
    """A camera shake: the blurred path of a hand with inertia, [size, size], sum 1.

    The path's velocity is an Ornstein–Uhlenbeck process; it is scaled to fit, drawn with bilinear
    weights and softened by a pixel.

    Example:
        >>> motion_kernel(17, seed=0).shape
        (17, 17)
    """
    if size < 3:
        raise ValueError(f"motion kernel: expected a size of at least 3, got {size}")
    rng = np.random.default_rng(seed)
    velocity, position = rng.normal(size=2), np.zeros(2)
    path = []
    for push in rng.normal(size=(400, 2)):
        velocity = 0.98 * velocity + 0.2 * push
        position = position + velocity
        path.append(position)
    points = np.array(path)
    points -= (points.max(0) + points.min(0)) / 2
    points *= (size - 3) / 2 / np.abs(points).max()
    points += (size - 1) / 2
    kernel = np.zeros((size, size))
    low = np.floor(points).astype(int)
    part = points - low
    for dy in (0, 1):
        for dx in (0, 1):
            weight = np.abs(1 - dy - part[:, 0]) * np.abs(1 - dx - part[:, 1])
            inside = np.minimum(low + (dy, dx), size - 1)
            np.add.at(kernel, tuple(inside.T), weight)
    for axis in (0, 1):
        kernel = scipy.ndimage.convolve1d(kernel, [0.25, 0.5, 0.25], axis, mode="constant")
    return kernel / kernel.sum()


def load_kernel(spec: str) -> np.ndarray:
    """A blur kernel [h, w] from a file or a recipe.

    Args:
        spec: a `.mat` of MATLAB v5 or v7.3 (`FILE.mat`, its first kernel, or `FILE.mat:3`, the
            fourth), a `.npy`, a `.png` (its grey values, scaled to sum 1), `gaussian:SIZE,STD` or
            `motion:SIZE,SEED`.

    Raises:
        ValueError: for a recipe or file that holds no kernel; FileNotFoundError.

    Example:
        >>> load_kernel("gaussian:9,1.5").shape
        (9, 9)
    """
    recipes: dict[str, tuple[Callable, type, type]] = {
        "gaussian": (gaussian_kernel, int, float),
        "motion": (motion_kernel, int, int),
    }
    name, _, rest = spec.partition(":")
    if name in recipes:
        make, first, second = recipes[name]
        a, _, b = rest.partition(",")
        try:
            values = first(a), second(b)
        except ValueError:
            example = {"gaussian": "gaussian:9,1.5", "motion": "motion:9,0"}[name]
            raise ValueError(f"kernel {spec!r}: expected something like {example}") from None
        return make(*values)
    path, index = Path(spec), 0
    if not path.exists() and ".mat:" in spec:
        stem, _, number = spec.rpartition(":")
        if not number.isdigit():
            raise ValueError(f"kernel {spec!r}: expected a number behind the colon, as FILE.mat:3")
        path, index = Path(stem), int(number)
    if not path.is_file():
        raise FileNotFoundError(
            f"kernel {spec!r}: no such file, nor a recipe such as gaussian:9,1.5 or motion:9,0"
        )
    try:
        if path.suffix == ".mat":
            kernels = load_kernels(path)
            if index >= len(kernels):
                raise ValueError(f"holds {len(kernels)} kernels, numbered from 0, not {index}")
            kernel = kernels[index]
        elif path.suffix == ".npy":
            kernel = np.load(path, allow_pickle=False)
        elif path.suffix == ".png":
            with Image.open(path) as image:
                kernel = np.asarray(image.convert("F"), np.float64)
            if kernel.sum() == 0:
                raise ValueError("is all black")
            kernel = kernel / kernel.sum()
        else:
            raise ValueError("expected .mat, .npy or .png")
    except (ValueError, OSError, UnidentifiedImageError, EOFError) as e:
        raise ValueError(f"kernel {path}: {e}") from e
    if kernel.ndim != 2 or kernel.size == 0 or not np.issubdtype(kernel.dtype, np.number):
        raise ValueError(f"kernel {path}: expected a real array [h, w], got {list(kernel.shape)}")
    return kernel


def load_kernels(path: str | Path) -> list[np.ndarray]:
    """Every kernel of a .mat (v5 or v7.3): those of its field `kernels`, or of its only array.

    Raises:
        ValueError: for a file that holds none; FileNotFoundError.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if h5py.is_hdf5(path):  # v7.3, which stores arrays transposed
        with h5py.File(path) as file:
            arrays = {k: _hdf5_cells(file, v) for k, v in file.items() if not k.startswith("#")}
    else:
        try:
            content = scipy.io.loadmat(str(path))
        except (ValueError, TypeError, NotImplementedError, scipy.io.matlab.MatReadError) as e:
            raise ValueError(f"not readable as a .mat file ({e})") from e
        arrays = {k: _cells(v) for k, v in content.items() if not k.startswith("__")}
    if "kernels" in arrays:
        return arrays["kernels"]
    if len(arrays) != 1:
        raise ValueError(f"expected a field 'kernels', got {', '.join(arrays) or 'nothing'}")
    return next(iter(arrays.values()))


def _cells(array: np.ndarray) -> list[np.ndarray]:
    return [np.asarray(a) for a in array.ravel()] if array.dtype == object else [array]


def _hdf5_cells(file, item: Any) -> list[np.ndarray]:
    data = item[()]
    if data.dtype == object:
        return [np.asarray(file[ref]).T for ref in data.ravel()]
    return [np.asarray(data).T]
