"""Where many images come from: a folder, packed images, or a Hugging Face data set on disk."""

import hashlib
import io
import itertools
import warnings
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from jaxdiff.data.arrays import read_npz
from jaxdiff.data.decode import IMAGE_SUFFIXES
from jaxdiff.data.inputs import Refused, reading
from jaxdiff.util import fingerprint
from jaxdiff.util.names import printable

SPLITS = {"train": ("train",), "validation": ("validation", "val", "valid", "test")}
Source = Callable[[], Any]  # opens one image's file, or its bytes
_LEAST = 32  # bytes of an image, on average; without it, places that cost nothing take memory
# Pictures that are not read, which a person would miss.
_OTHER_PICTURES = (
    *(".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".jpx", ".jpe", ".psd", ".svg", ".tga"),
    *(".hdr", ".exr", ".pfm", ".pcx", ".eps", ".ico", ".dib", ".apng", ".qoi", ".dds", ".xcf"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2"),
)


def list_images(folder: str | Path) -> list[Path]:
    """The image files of a folder, sorted by name; hidden ones are left out.

    Warns of pictures in formats that are not read.

    Raises:
        ValueError: where there are none.
    """
    return _images(folder, Path(folder).iterdir())


def find_images(root: str | Path) -> list[Path]:
    """The image files of a folder and of those below it, sorted by path; as `list_images`."""
    return _images(root, find(root))


def find(root: str | Path, *suffixes: str) -> list[Path]:
    """The files of a folder and of those below it, sorted; none that hides, or that macOS made."""
    root = Path(root)

    def seen(path: Path) -> bool:
        parts = path.relative_to(root).parts
        return not any(part.startswith(".") or part == "__MACOSX" for part in parts)

    named = (p for p in root.rglob("*") if not suffixes or p.suffix.lower() in suffixes)
    return sorted(p for p in named if seen(p) and p.is_file())


def _images(source, paths: Iterable[Path]) -> list[Path]:
    files = sorted(p for p in paths if not p.name.startswith(".") and p.is_file())
    found = [p for p in files if p.suffix.lower() in IMAGE_SUFFIXES]
    others = [p for p in files if p.suffix.lower() in _OTHER_PICTURES]
    if not found:
        such = f", but {printable(others[0].name)}, which is not read" if others else ""
        raise ValueError(
            f"{printable(source)}: holds no images ({', '.join(IMAGE_SUFFIXES)}){such}"
        )
    if others:
        warnings.warn(
            f"{printable(source)}: {len(others)} pictures left out, such as "
            f"{printable(others[0].name)}: save them as PNG",
            stacklevel=3,
        )
    return found


def packed_files(source: Path, split: str) -> list[memoryview]:
    """The image files of a split of a packed .npz.

    Raises:
        ValueError: where it is none, or has no such split.
    """
    packed, offsets = read_npz(source, f"{split}_bytes", f"{split}_offsets")
    ends = offsets.astype(np.int64)
    if (
        packed.dtype != np.uint8
        or packed.ndim != 1
        or offsets.dtype.kind not in "iu"
        or offsets.ndim != 1
        or (len(ends) and not (ends[0] >= 0 and ends[-1] <= len(packed)))
        or (np.diff(ends) < 0).any()
    ):
        raise ValueError(
            f"{printable(source)}: {split}_offsets are no ascending places in {split}_bytes"
        )
    if _LEAST * (len(ends) - 1) > len(packed):
        raise ValueError(
            f"{printable(source)}: {split}_offsets has {len(ends) - 1} images in "
            f"{len(packed)} bytes"
        )
    view = packed.data
    return [view[a:b] for a, b in itertools.pairwise(ends.tolist())]


def training_images(source: Path) -> dict[str, list[tuple[str, Source]]]:
    """The images of the splits train and validation: their names, and what opens them.

    Without a validation split a twentieth of the images, 500 at most, is held out.

    Raises:
        FileNotFoundError; ValueError: as `find_images` and `packed_files`, or for a .parquet file
        without a column of images.
    """
    if source.is_file():
        packed = {"train": packed_files(source, "train"), "validation": []}
        try:
            packed["validation"] = packed_files(source, "val")
        except ValueError as e:  # it has none: some are held out
            if "expected an .npz" not in str(e):
                raise
        return _held_out(
            {
                split: [(f"{split} {i}", partial(io.BytesIO, c)) for i, c in enumerate(contents)]
                for split, contents in packed.items()
            }
        )
    if not source.is_dir():
        raise FileNotFoundError(f"{printable(source)}: no such folder or .npz of images")
    if tables := find(source, ".parquet"):
        named = {s: [t for t in tables if t.name.startswith(names)] for s, names in SPLITS.items()}
        named["train"] = named["train"] or tables
        # A part of a file at a time: all of it can be larger than memory.
        read = lru_cache(maxsize=2)(_row_group)
        return _held_out(
            {s: [i for t in found for i in _rows(t, read)] for s, found in named.items()}
        )
    images = [
        (str(path.relative_to(source)), partial(open, path, "rb")) for path in find_images(source)
    ]
    top = {name.split("/")[0] for name, _ in images}
    if not top & set(SPLITS["validation"]):
        return _held_out({"train": images, "validation": []})
    return {s: [i for i in images if i[0].startswith(names)] for s, names in SPLITS.items()}


def _rows(table: Path, read: Callable) -> list[tuple[str, Source]]:
    """The images of a .parquet file of Hugging Face: a column of bytes, or of {bytes, path}."""
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise ValueError(
            f"{printable(table)}: to read .parquet files: pip install pyarrow"
        ) from None

    def binary(kind) -> bool:
        kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
        return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)

    with reading(table, "a .parquet file"), parquet.ParquetFile(table) as file:
        columns = [f.name for f in file.schema_arrow if binary(f.type)]
        for field in file.schema_arrow:
            if pyarrow.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0:
                columns.append(f"{field.name}.bytes")
        if not columns:
            raise Refused(f"has no column of images, but {', '.join(file.schema_arrow.names)}")
        rows, size = file.metadata.num_rows, table.stat().st_size
        groups = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
        if max(rows, sum(groups)) > size or min(groups, default=0) < 0:
            raise Refused(f"{rows} rows in {size} bytes")
    places = [(g, i) for g, n in enumerate(groups) for i in range(n)]
    return [
        (f"{printable(table.name)}, row {row}", partial(_cell, read, table, columns[0], group, i))
        for row, (group, i) in enumerate(places)
    ]


def _cell(read: Callable, table: Path, column: str, group: int, row: int) -> io.BytesIO:
    values = read(table, column, group)
    with reading(table, "a .parquet file"):
        value = values[row].as_py()
    if value is None:
        raise ValueError("has no bytes")
    return io.BytesIO(value)


def _row_group(table: Path, column: str, group: int) -> Any:
    import pyarrow.parquet as parquet

    # As a dictionary: one picture that all rows share is in memory once.
    with (
        reading(table, "a .parquet file"),
        parquet.ParquetFile(table, read_dictionary=[column]) as file,
    ):
        return file.read_row_group(group, columns=[column]).flatten().column(0)


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


def files_of(source: Path) -> list[tuple[str, Path]]:
    """The files that `training_images` reads, each with its name in the source."""
    if source.is_file():
        return [(source.name, source)]
    found = find(source, ".parquet") or find(source, *IMAGE_SUFFIXES)
    return [(str(path.relative_to(source)), path) for path in found]


def identity(source: Path, known: dict[str, str] | None = None) -> dict[str, str]:
    """What tells a source from every other: hashes of its files' `content`, and of their `dates`.

    Where the dates of `known` are those that are found, its content is taken unread.
    """
    files = files_of(source)
    found = [(name, path.stat()) for name, path in files]
    told = repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in found])
    dates = hashlib.sha256(told.encode()).hexdigest()
    if known is not None and known["dates"] == dates:
        return known
    return {"content": fingerprint.of_files(files), "dates": dates}
