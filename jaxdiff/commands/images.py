"""The images that a command is given: which, under which names, and which of them are bad."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath

import numpy as np

from jaxdiff import data
from jaxdiff.data.images import find_images
from jaxdiff.util.names import printable


def find(source: Path, out: Path | None = None) -> list[Path]:
    """The images of a folder and of those below it, or the one image.

    Args:
        out: a folder of results, whose pictures are none of them.

    Raises:
        FileNotFoundError: for a source that is not there. ValueError: for a folder without images.
    """
    if not source.exists():
        raise FileNotFoundError(f"{printable(source)}: no such image or folder")
    if not source.is_dir():
        return [source]
    found = find_images(source)
    if out is not None and out.exists():
        found = [p for p in found if out.resolve() not in p.resolve().parents]
    if not found:
        raise ValueError(f"{printable(source)}: holds no images but its results")
    return found


def relative(paths: Iterable[Path], source: Path) -> list[PurePath]:
    """Their paths within the folder; the name of the one image."""
    return [p.relative_to(source) if p != source else PurePath(p.name) for p in paths]


def read(path: Path, shape: tuple[int, ...], fit: str | None) -> np.ndarray:
    """An image [H, W, C] in [0, 1] of that shape, fitted the way that was chosen.

    Raises:
        ValueError, OSError: in a line that names the file.
    """
    try:
        image = data.read_image(path, shape[2])
    except MemoryError as e:
        raise ValueError(f"{path}: is too large for this machine's memory") from e
    return _fitted(path, image, shape[:2], fit)


def picture(path: Path, size: Sequence[int], fit: str | None) -> data.Picture:
    """An image [H, W, 1 or 3], and what a picture of it keeps, as it is or fitted to that size.

    Raises:
        ValueError, OSError: in a line that names the file.
    """
    try:
        found = data.read_picture(path)
    except MemoryError as e:
        raise ValueError(f"{path}: is too large for this machine's memory") from e
    if fit is None:
        return found
    alpha = None if found.alpha is None else _fitted(path, found.alpha, size, fit)
    return found._replace(image=_fitted(path, found.image, size, fit), alpha=alpha)


def _fitted(path: Path, image: np.ndarray, size: Sequence[int], fit: str | None) -> np.ndarray:
    try:
        return data.fit(image, (size[0], size[1]), fit)
    except ValueError as e:
        raise ValueError(f"{path}: {e} (--fit resize or --fit crop)") from e


def read_all(
    source: Path, shape: tuple[int, ...], fit: str | None, n: int | None = None
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The first n good images of a folder by name, and a line for each bad one before them.

    Raises:
        ValueError: where none is good.
    """
    images: dict[str, np.ndarray] = {}
    bad: list[str] = []
    paths = find(source)
    for path, name in zip(paths, relative(paths, source)):
        if n is not None and len(images) == n:
            break
        try:
            images[printable(name)] = read(path, shape, fit)
        except (ValueError, OSError) as e:
            bad.append(str(e))
    if not images:
        raise ValueError(f"{printable(source)}: none of its {len(bad)} images is good: {bad[0]}")
    return images, bad


def batches(items: list, size: int) -> Iterator[list]:
    """Lists of at most `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def filled(items: list, size: int) -> list:
    """Of that size, filled up with repeats: a batch of another size would recompile."""
    return items + items[-1:] * (size - len(items))
