"""Training images: decoded and resized once, then read from disk in a random order."""

import contextlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from tqdm.auto import tqdm

from jaxdiff.data.images import find_images, packed_files

SPLITS = {"train": ("train",), "validation": ("validation", "val", "valid", "test")}
CROPS = 16  # of each validation image
Source = Callable[[], Any]  # opens one image's file, or its bytes


@dataclass(frozen=True)
class Pixels:
    """Images uint8 on disk, memory-mapped, and what was skipped to get them.

    `train`: N images [H, W, C], of the training size S or, to be cropped, of their own size;
    `validation`: [M, S, S, C].
    """

    train: Sequence[Any] | np.ndarray
    validation: np.ndarray
    skipped: list[str]

    @property
    def size(self) -> int:
        """S: height and width of what a network is trained on."""
        return self.validation.shape[1]

    def batch(self, step: int, size: int, seed: int, flip: bool = True) -> np.ndarray:
        """The training batch of a step, [size, S, S, C]: a function of its arguments alone.

        Every epoch is a permutation of the images of its own. Of a larger image it takes a square
        at a random place; with `flip`, every other image or so is mirrored. So a run that was
        stopped goes on with the images that it would have had.
        """
        epochs, within = np.divmod(np.arange(step * size, (step + 1) * size), len(self.train))
        chosen = [_order(len(self.train), seed, int(e))[i] for e, i in zip(epochs, within)]
        rng = np.random.default_rng([seed, step])
        mirrored = (rng.random(size) < 0.5) & flip
        places = rng.random((size, 2))
        images = np.empty((size, *self.validation.shape[1:]), np.uint8)
        for place, (i, at, mirror) in enumerate(zip(chosen, places, mirrored)):
            square = _crop(self.train[int(i)], self.size, at)
            images[place] = square[:, ::-1] if mirror else square
        return images


@lru_cache(maxsize=2)
def _order(n: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch, n]).permutation(n)


def _crop(image: np.ndarray, size: int, at) -> np.ndarray:
    """The square at a place in [0, 1)² of those that there are."""
    top, left = (int(a * (n - size + 1)) for a, n in zip(at, image.shape))
    return image[top : top + size, left : left + size]


def prepare(
    source: str | Path,
    folder: str | Path,
    size: int,
    channels: int = 3,
    *,
    crop: bool = False,
    progress: bool = False,
) -> Pixels:
    """Decode images into `folder`, for training at size × size; what is there is only opened.

    Args:
        source: a folder, searched with the folders below it; an .npz of packed images
            (`load_images`); or a Hugging Face image data set on disk, of .parquet files or with
            folders `train` and `validation`. Without a validation split a twentieth of the images,
            500 at most, is held out.
        folder: receives train.uint8, validation.uint8 and images.json.
        size, channels: images are scaled to cover the square and cut on two sides, and converted
            to RGB or grey. One that is smaller, or damaged, is skipped and counted.
        crop: keep images at their own scale, for squares at random places; of a validation image,
            16 such squares are kept.

    Raises:
        FileNotFoundError; ValueError: where fewer than two usable images are left.

    Example:
        >>> import tempfile
        >>> from importlib.resources import files
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pixels = prepare(Path(str(files("jaxdiff"))) / "assets" / "faces", folder, 32)
        ...     pixels.train.shape, pixels.batch(step=0, size=4, seed=0).shape
        ((7, 32, 32, 3), (4, 32, 32, 3))
    """
    folder = Path(folder)
    written = folder / "images.json"
    if not written.exists():
        splits = _find(Path(source))
        folder.mkdir(parents=True, exist_ok=True)
        skipped: list[str] = []
        shapes: dict[str, list[tuple[int, ...]]] = {}
        for split, images in splits.items():
            decoded = _decode(images, None if crop else size, size, channels, skipped, progress)
            if crop and split == "validation":
                rng = np.random.default_rng(0)
                decoded = (_crop(i, size, at) for i in decoded for at in rng.random((CROPS, 2)))
            with open(folder / f"{split}.uint8", "wb") as file:
                shapes[split] = []
                for pixels in decoded:
                    file.write(pixels.tobytes())
                    shapes[split].append(pixels.shape)
        if not all(shapes.values()):
            raise ValueError(
                f"{source}: {sum(map(len, shapes.values()))} usable images of at least {size}×{size} pixels, "
                "which must be two or more"
                + (f"; {len(skipped)} skipped: {skipped[0]}, ..." if skipped else "")
            )
        content = {"source": str(source), "shape": [size, size, channels], "skipped": skipped}
        content |= {"crop": shapes["train"]} if crop else {}
        # Last, and under another name first: a folder that has it is whole.
        temporary = written.with_suffix(".tmp")
        temporary.write_text(json.dumps(content, indent=2) + "\n")
        temporary.replace(written)
    content = json.loads(written.read_text())
    known = content["source"], content["shape"], "crop" in content
    if known != (str(source), [size, size, channels], crop):
        cropped = ", to be cropped" if known[2] else ""
        raise ValueError(f"{folder}: holds {known[0]} at {known[1]}{cropped}, name another folder")
    train, validation = (  # as plain arrays, whose slices cost a fourth
        np.asarray(np.memmap(folder / f"{split}.uint8", np.uint8, "r")) for split in SPLITS
    )
    validation = validation.reshape(-1, size, size, channels)
    if not crop:
        return Pixels(train.reshape(-1, size, size, channels), validation, content["skipped"])
    ends = np.cumsum([np.prod(shape) for shape in content["crop"]])
    images = [a.reshape(s) for a, s in zip(np.split(train, ends[:-1]), content["crop"])]
    return Pixels(images, validation, content["skipped"])


def _decode(
    images, fitted: int | None, least: int, channels, skipped: list[str], progress: bool
) -> Iterator[np.ndarray]:
    """The usable ones, in order, at size `fitted` or their own; what is wrong with the others is

    added to `skipped`.
    """

    def decode(name: str, source: Source) -> np.ndarray | str:
        try:
            with source() as file, Image.open(file) as image:
                if min(image.size) < least:
                    return f"{name}: {image.size[0]}×{image.size[1]} pixels"
                image = image.convert("RGB" if channels == 3 else "L")
            if fitted is not None:
                image = ImageOps.fit(image, (fitted, fitted), Image.Resampling.LANCZOS)
            return np.asarray(image).reshape(image.height, image.width, channels)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
            return f"{name}: {' '.join(str(e).split())}"

    bar = tqdm(total=len(images), unit="image", desc="reading", disable=not progress)
    with ThreadPoolExecutor() as pool, bar:
        for start in range(0, len(images), 256):  # a few at a time: they wait in memory
            for result in pool.map(lambda pair: decode(*pair), images[start : start + 256]):
                bar.update()
                if isinstance(result, str):
                    skipped.append(result)
                else:
                    yield result


def _find(source: Path) -> dict[str, list[tuple[str, Source]]]:
    """The images of both splits: their names, and what opens them."""
    if source.is_file():
        packed = {"train": packed_files(source, "train"), "validation": []}
        with contextlib.suppress(ValueError):  # it has none: some are held out
            packed["validation"] = packed_files(source, "val")
        return _held_out(
            {
                split: [(f"{split} {i}", partial(io.BytesIO, c)) for i, c in enumerate(contents)]
                for split, contents in packed.items()
            }
        )
    if not source.is_dir():
        raise FileNotFoundError(f"{source}: no such folder or .npz of images")
    if tables := sorted(source.rglob("*.parquet")):
        named = {s: [t for t in tables if t.name.startswith(names)] for s, names in SPLITS.items()}
        named["train"] = named["train"] or tables
        return _held_out({s: [i for t in found for i in _rows(t)] for s, found in named.items()})
    images = [
        (str(path.relative_to(source)), partial(open, path, "rb")) for path in find_images(source)
    ]
    top = {name.split("/")[0] for name, _ in images}
    if not top & set(SPLITS["validation"]):
        return _held_out({"train": images, "validation": []})
    return {s: [i for i in images if i[0].startswith(names)] for s, names in SPLITS.items()}


def _rows(table: Path) -> list[tuple[str, Source]]:
    """The images of a .parquet file of Hugging Face: a column of bytes, or of {bytes, path}."""
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise ValueError(f"{table}: to read .parquet files: pip install pyarrow") from None
    columns = parquet.read_table(table).to_pydict()
    for values in columns.values():
        found = (v.get("bytes") if isinstance(v, dict) else v for v in values)
        cells = [c for c in found if isinstance(c, bytes)]
        if cells and len(cells) == len(values):
            names = (f"{table.name}, row {i}" for i in range(len(cells)))
            return [(name, partial(io.BytesIO, c)) for name, c in zip(names, cells)]
    raise ValueError(f"{table}: has no column of images, but {', '.join(columns)}")


def _held_out(splits: dict[str, list]) -> dict[str, list]:
    """Where there is no validation split, a twentieth of the images, 500 at most, drawn once."""
    images = splits["train"]
    if splits["validation"] or len(images) < 2:
        return splits
    n = min(500, max(1, len(images) // 20))
    held = set(np.random.default_rng(0).permutation(len(images))[:n].tolist())
    return {
        "train": [image for i, image in enumerate(images) if i not in held],
        "validation": [image for i, image in enumerate(images) if i in held],
    }
