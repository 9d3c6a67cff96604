"""Blur kernels: made, and read from files."""

import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy  # whose parts load at their first use

from jaxdiff.data.arrays import read_npy
from jaxdiff.data.decode import IMAGE_SUFFIXES, decode
from jaxdiff.data.mat import read_mat
from jaxdiff.util import limits
from jaxdiff.util.names import printable


def gaussian_kernel(size: int, std: float) -> np.ndarray:
    """A Gaussian [size, size] of standard deviation `std` pixels, sum 1.

    Example:
        >>> round(float(gaussian_kernel(5, 1.0).sum()), 6)
        1.0
    """
    if size < 1 or not 0 < std < 1e100:
        raise ValueError(f"gaussian kernel: expected size ≥ 1 and std > 0, got {size} and {std}")
    limits.check("bytes", 8 * size**2, "KERNEL_BYTES")
    r = np.arange(size) - (size - 1) / 2
    with np.errstate(all="ignore"):
        kernel = np.exp(-(r[:, None] ** 2 + r[None] ** 2) / (2 * std**2))
        kernel = kernel / kernel.sum()
    if not np.isfinite(kernel).all():
        raise ValueError(f"gaussian kernel: std {std:g} is too small for a size of {size}")
    return kernel


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
    if seed < 0:
        raise ValueError(f"motion kernel: expected a seed of at least 0, got {seed}")
    limits.check("bytes", 8 * size**2, "KERNEL_BYTES")
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

    A kernel is used as it is, but for one of whole numbers, such as MATLAB's uint8, and for
    pictures: they are divided by their sum. Warns where it does so to an array, and where a sum
    is not between 1/2 and 2.

    Args:
        spec: a `.mat` of MATLAB v5 or v7.3 (`FILE.mat`, its first kernel, or `FILE.mat:3`, the
            fourth), a `.npy`, a picture (its grey values), `gaussian:SIZE,STD` or
            `motion:SIZE,SEED`.

    Raises:
        ValueError: for a recipe or file that holds no kernel, or one that sums to zero or less;
        FileNotFoundError.

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
    path, index = Path(spec), None
    if not path.exists() and (numbered := re.fullmatch(r"(.+\.mat):(.*)", spec, re.I | re.S)):
        if not re.fullmatch(r"[0-9]{1,9}", numbered[2]):
            raise ValueError(
                f"kernel {printable(spec)!r}: expected a number behind the colon, as FILE.mat:3"
            )
        path, index = Path(numbered[1]), int(numbered[2])
    if not path.is_file():
        raise FileNotFoundError(
            f"kernel {printable(spec)!r}: no such file, nor a recipe such as gaussian:9,1.5 or "
            "motion:9,0"
        )
    suffix, name = path.suffix.lower(), f"kernel {printable(spec)}"
    if suffix == ".mat":
        kernels = _read_kernels(path)
        if (index or 0) >= len(kernels):
            raise ValueError(
                f"kernel {printable(path)}: holds {len(kernels)} kernels, numbered from 0, "
                f"not {index}"
            )
        return _checked(kernels[index or 0], name)
    if suffix == ".npy":
        return _checked(read_npy(path), name)
    if suffix in IMAGE_SUFFIXES:
        kernel = np.asarray(decode(path, path).convert("F"), np.float64)
        if kernel.sum() == 0:
            raise ValueError(f"{name}: is all black")
        return _checked(kernel / kernel.sum(), name)
    raise ValueError(f"{name}: expected .mat, .npy or a picture")


def load_kernels(path: str | Path) -> list[np.ndarray]:
    """Every kernel [h, w] of a .mat (v5 or v7.3): those of its field `kernels`, or its only array.

    They are cells, or an array [h, w, N]; whole numbers are divided by their sum, as `load_kernel`
    says.

    Raises:
        ValueError: for a file that holds none, or a kernel that is none; FileNotFoundError.
    """
    kernels = _read_kernels(Path(path))
    return [_checked(k, f"kernel {printable(path)}:{i}") for i, k in enumerate(kernels)]


def _read_kernels(path: Path) -> list[np.ndarray | None]:
    if not path.is_file():
        raise FileNotFoundError(f"{printable(path)}: no such file")
    variables = read_mat(path)
    numeric = {name: value for name, value in variables.items() if value is not None}
    if "kernels" in numeric:
        found = numeric["kernels"]
    elif len(numeric) == 1:
        (found,) = numeric.values()
    else:
        names = ", ".join(map(printable, list(variables)[:9])) or "nothing"
        raise ValueError(
            f"kernel {printable(path)}: expected a field 'kernels' of numbers or cells, or a "
            f"single array, got {names}"
        )
    if isinstance(found, list):
        return found
    return list(np.moveaxis(found, -1, 0)) if found.ndim == 3 else [found]


def _checked(kernel: np.ndarray | None, name: str) -> np.ndarray:
    """A kernel that a blur may take; one of whole numbers has not been divided by its sum yet."""
    if kernel is None or kernel.ndim != 2 or kernel.size == 0 or kernel.dtype.kind not in "biuf":
        got = "no numbers" if kernel is None else f"{kernel.dtype} {list(kernel.shape)}"
        raise ValueError(f"{name}: expected a real array [h, w], got {got}")
    values = kernel.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: holds NaN or infinite values")
    with np.errstate(over="ignore"):
        total, size = values.sum(), np.abs(values).sum()
    if not 1e-6 * size < total < np.inf:
        raise ValueError(f"{name}: sums to {total:g}, a blur's kernel to about 1")
    if total != 1 and (values == np.round(values)).all():
        warnings.warn(f"{name}: whole numbers, divided by their sum {total:g}", stacklevel=3)
        return values / total
    edge = min(values[0].min(), values[-1].min(), values[:, 0].min(), values[:, -1].min())
    if edge > values.mean():
        warnings.warn(
            f"{name}: brighter all around than inside: is it the negative of a kernel?",
            stacklevel=3,
        )
    if not 0.5 <= total <= 2:
        warnings.warn(
            f"{name}: sums to {total:g}, and makes images {total:g} times as bright: divide it by "
            "its sum unless they are",
            stacklevel=3,
        )
    return kernel
