"""Training images: decoded and resized once, then read from disk in a random order."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from tqdm.auto import tqdm

from jaxdiff.data.decode import decode
from jaxdiff.data.images import to_uint8
from jaxdiff.data.sources import SPLITS, Source, identity, training_images
from jaxdiff.util.files import read_json
from jaxdiff.util.names import printable

CROPS = 16  # of each validation image
AT_ONCE = 32  # images that wait in memory


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
        folder: receives train.uint8, validation.uint8 and images.json, which knows the images
            by their bytes.
        size, channels: images are scaled to cover the square and cut on two sides, and converted
            to RGB or grey. One that is smaller, or damaged, is skipped and counted.
        crop: keep images at their own scale, for squares at random places; of a validation image,
            16 such squares are kept.

    Raises:
        FileNotFoundError; ValueError: where fewer than two usable images are left, or `folder`
        holds others.

    Example:
        >>> import tempfile
        >>> from importlib.resources import files
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pixels = prepare(Path(str(files("jaxdiff"))) / "assets" / "faces", folder, 32)
        ...     pixels.train.shape, pixels.batch(step=0, size=4, seed=0).shape
        ((7, 32, 32, 3), (4, 32, 32, 3))
    """
    source, folder = Path(source), Path(folder)
    written = folder / "images.json"
    if not written.exists():
        splits = training_images(source)
        known = identity(source)
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
            found = " and ".join(f"{len(shapes[split])} for {split}" for split in SPLITS)
            raise ValueError(
                f"{printable(source)}: usable images of at least {size}×{size} pixels are {found}, "
                "expected one or more of each"
                + (f"; {len(skipped)} skipped: {skipped[0]}, ..." if skipped else "")
            )
        content = {"source": str(source), "shape": [size, size, channels], "skipped": skipped}
        content |= {"crop": shapes["train"]} if crop else {}
        sizes = {split: (folder / f"{split}.uint8").stat().st_size for split in SPLITS}
        content |= {"bytes": sizes, "identity": known}
        # Last, and under another name first: a folder that has it is whole.
        temporary = written.with_suffix(".tmp")
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        temporary.replace(written)
    content = read_json(written)
    _check(folder, content, source, [size, size, channels], crop)
    train, validation = (  # as plain arrays, whose slices cost a fourth
        np.asarray(np.memmap(folder / f"{split}.uint8", np.uint8, "r")) for split in SPLITS
    )
    validation = validation.reshape(-1, size, size, channels)
    if not crop:
        return Pixels(train.reshape(-1, size, size, channels), validation, content["skipped"])
    ends = np.cumsum([np.prod(shape) for shape in content["crop"]])
    images = [a.reshape(s) for a, s in zip(np.split(train, ends[:-1]), content["crop"])]
    return Pixels(images, validation, content["skipped"])


def _check(folder: Path, content: dict[str, Any], source: Path, shape: list[int], crop: bool):
    """Raise unless `folder` holds these images: the same files, wherever they lie now."""
    sizes = {split: (folder / f"{split}.uint8").stat().st_size for split in SPLITS}
    whole = {"source", "shape", "skipped"} <= content.keys()
    if not whole or content.get("bytes", sizes) != sizes:
        raise ValueError(f"{folder}: damaged, remove it")
    cropped = "crop" in content
    if (content["shape"], cropped) != (shape, crop):
        raise ValueError(
            f"{folder}: holds {printable(content['source'])} at {content['shape']}"
            f"{', to be cropped' if cropped else ''}, name another folder"
        )
    known = content.get("identity")  # which earlier versions did not write
    if known is None or not source.exists():
        same = content["source"] == str(source)
    else:
        same = identity(source, known)["content"] == known["content"]
    if not same:
        raise ValueError(
            f"{folder}: holds other images than {printable(source)} does now "
            f"({printable(content['source'])}), name another folder"
        )


def _decode(
    images, fitted: int | None, least: int, channels, skipped: list[str], progress: bool
) -> Iterator[np.ndarray]:
    """The usable ones, in order, at size `fitted` or their own.

    What is wrong with the others is added to `skipped`.
    """

    def load(name: str, source: Source) -> np.ndarray | str:
        name = printable(name)
        try:
            with source() as file:
                image = decode(file, name)
        except (ValueError, OSError) as e:
            return str(e) if str(e).startswith(name) else f"{name}: {printable(e)}"
        if min(image.size) < least:
            return f"{name}: {image.size[0]}×{image.size[1]} pixels"
        if image.mode == "F":  # more than 8 bits, in [0, 1]
            image = Image.fromarray(to_uint8(np.asarray(image)))
        image = image.convert("RGB" if channels == 3 else "L")
        if fitted is not None:
            image = ImageOps.fit(image, (fitted, fitted), Image.Resampling.LANCZOS)
        return np.asarray(image).reshape(image.height, image.width, channels)

    bar = tqdm(total=len(images), unit="image", desc="reading", disable=not progress)
    with ThreadPoolExecutor() as pool, bar:
        for start in range(0, len(images), AT_ONCE):
            for result in pool.map(lambda pair: load(*pair), images[start : start + AT_ONCE]):
                bar.update()
                if isinstance(result, str):
                    skipped.append(result)
                else:
                    yield result
