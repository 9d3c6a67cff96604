"""Blur kernels: made, and read from files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy  # whose parts load at their first use: 0.3 s and 16 MB
from PIL import Image, UnidentifiedImageError


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
        except Exception as e:  # cut short: IndexError, OSError, zlib's, scipy's own, by the place
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
