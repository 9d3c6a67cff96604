"""Images: read, written, and fitted to a prior's size."""

import io
from importlib.resources import files
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from jaxdiff.data.decode import decode
from jaxdiff.data.sources import find_images, list_images, packed_files
from jaxdiff.util.names import printable


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


def read_image(
    path: str | Path | IO[bytes], channels: int | None = 3, name: object = None
) -> np.ndarray:
    """An image file as [H, W, channels] float32 in [0, 1]; None takes as many as it has.

    It is read upright, with 8 or 16 bits a channel (`decode` says which kinds), as 1 channel of
    grey or 3 of RGB. Errors call it by `name`, or by its path.

    Raises:
        FileNotFoundError: where there is none.
        ValueError: for a file that can't be read as an image, or has other channels.
    """
    name = path if name is None else name
    try:
        array = np.asarray(decode(path, name))
    except FileNotFoundError:
        raise FileNotFoundError(f"{printable(name)}: no such image") from None
    bands = 1 if array.ndim == 2 else array.shape[2]
    if channels not in (None, bands):
        raise ValueError(
            f"{printable(name)}: has {bands} channels, the prior has {channels}: "
            f"convert it to {'RGB' if channels == 3 else 'greyscale'} first"
        )
    return _in_unit_range(array)


def _in_unit_range(array: np.ndarray) -> np.ndarray:
    """[H, W, bands] float32 in [0, 1] of decoded pixels."""
    if array.dtype == np.uint8:  # in float32, the same bits as by float64 in a third of the memory
        array = np.divide(array, np.float32(255), dtype=np.float32)
    return array.reshape(*array.shape[:2], -1)


class Picture(NamedTuple):
    """A file's image [H, W, 1 or 3] in [0, 1], and what a picture of it keeps beside its colours.

    `alpha` [H, W, 1] is None where it is opaque, `profile` the colour profile that says what the
    numbers look like.
    """

    image: np.ndarray
    alpha: np.ndarray | None = None
    profile: bytes | None = None


def read_picture(path: str | Path) -> Picture:
    """An image file with its transparency and its colour profile, as `read_image` reads it.

    Raises:
        FileNotFoundError, ValueError: as `read_image`.
    """
    try:
        decoded = decode(path, path, transparent=True)
    except FileNotFoundError:
        raise FileNotFoundError(f"{printable(path)}: no such image") from None
    profile = decoded.info.get("icc_profile")
    bands = _in_unit_range(np.asarray(decoded))
    if decoded.mode in ("LA", "RGBA"):
        return Picture(bands[..., :-1], bands[..., -1:], profile)
    return Picture(bands, None, profile)


def write_image(path: str | Path, image, alpha=None, profile: bytes | None = None) -> None:
    """Save an image [H, W, 3] or [H, W, 1] in [0, 1] as PNG, with what its `Picture` keeps."""
    array = to_uint8(image if alpha is None else np.concatenate([image, alpha], -1))
    pixels = Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
    pixels.save(path, format="PNG", icc_profile=profile)


def to_uint8(image) -> np.ndarray:
    """[0, 1] → 0–255, rounded; what is 8 bits already is left alone."""
    if np.asarray(image).dtype == np.uint8:
        return np.asarray(image)
    return np.round(np.clip(np.asarray(image), 0, 1) * 255).astype(np.uint8)


def load_images(
    source: str | Path,
    size: tuple[int, int],
    how: str | None = "resize",
    n: int | None = None,
    split: str = "train",
    channels: int = 3,
) -> np.ndarray:
    """The first n images of a folder, or of a packed .npz, as [N, H, W, channels] in [0, 1].

    Args:
        source: a folder, searched with the folders below it, in order of names; or an .npz that
            holds JPEG or PNG bytes end to end in `train_bytes`, image i from `train_offsets[i]` to
            `train_offsets[i + 1]`.
        size, how: images of another size are brought to (height, width) as `fit` says.
        split: of an .npz: "val" takes `val_bytes` and `val_offsets` instead.

    Raises:
        FileNotFoundError; ValueError: for a source without images, or one that can't be read.

    Example:
        >>> folder = Path(str(files("jaxdiff"))) / "assets" / "faces"
        >>> load_images(folder, (64, 64), n=3).shape
        (3, 64, 64, 3)
    """
    source = Path(source)
    if source.is_dir():
        files = [(path, path) for path in find_images(source)[:n]]
    elif source.is_file():
        packed = packed_files(source, split)[:n]
        files = [(io.BytesIO(c), f"{source}, {split} {i}") for i, c in enumerate(packed)]
    else:
        raise FileNotFoundError(f"{printable(source)}: no such folder or .npz of images")
    if not files:
        raise ValueError(f"{printable(source)}: holds no images")
    return np.stack([read_fitted(*file, size, how, channels) for file in files])


def read_fitted(file, name: object, size, how: str | None, channels: int) -> np.ndarray:
    """`read_image`, then `fit`, whose errors call the image by its name, too."""
    image = read_image(file, channels, name)
    try:
        return fit(image, size, how)
    except ValueError as e:
        raise ValueError(f"{printable(name)}: {e}") from None


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
