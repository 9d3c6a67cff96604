"""Packed images and tables of them, and pixels that know which images they are."""

import io
import json
import os
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from jaxdiff import data
from jaxdiff.data.pixels import prepare
from jaxdiff.data.sources import _cell, training_images
from jaxdiff.util import limits


def picture(value):
    file = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), value, np.uint8)).save(file, "BMP")  # all of one size
    return file.getvalue()


def folder_of(path, *values):
    path.mkdir(parents=True)
    for i, value in enumerate(values):
        (path / f"{i}.bmp").write_bytes(picture(value))
    return path


def packed(path, *values, save=np.savez, **changes):
    files = [picture(v) for v in values]
    offsets = np.cumsum([0, *map(len, files)])
    arrays = {"train_bytes": np.frombuffer(b"".join(files), np.uint8), "train_offsets": offsets}
    save(path, **(arrays | changes))
    return path


def table(path, *values, column=None):
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
    import pyarrow.parquet as parquet

    path.mkdir()
    cells = [{"bytes": picture(v), "path": None} for v in values] if column is None else column
    made = pyarrow.table({"label": list(range(len(cells))), "image": cells})
    parquet.write_table(made, path / "train.parquet", row_group_size=2)
    return path


SOURCES = {
    "folder": lambda path, *values: folder_of(path, *values),
    "npz": lambda path, *values: packed(path.with_suffix(".npz"), *values),
    "parquet": table,
}


@pytest.mark.parametrize("kind", SOURCES)
def test_other_images_of_the_same_names_and_sizes(kind, tmp_path, monkeypatch):
    """The same words on the command line, from another folder: not the images of before."""
    for name, values in (("a", (1, 2, 3)), ("b", (1, 2, 4))):
        (tmp_path / name).mkdir()
        SOURCES[kind](tmp_path / name / "photos", *values)
    monkeypatch.chdir(tmp_path / "a")
    (source,) = os.listdir()
    first = prepare(source, tmp_path / "out", 16)
    again = prepare(source, tmp_path / "out", 16)
    np.testing.assert_array_equal(first.train, again.train)
    monkeypatch.chdir(tmp_path / "b")
    with pytest.raises(ValueError, match="other images than photos"):
        prepare(source, tmp_path / "out", 16)
    np.testing.assert_array_equal(prepare(source, tmp_path / "new", 16).validation.ravel()[0], 4)


@pytest.mark.parametrize("change", ["another", "one more", "renamed", "removed"])
def test_a_folder_that_changed(change, tmp_path):
    source = folder_of(tmp_path / "photos", 1, 2, 3)
    prepare(source, tmp_path / "out", 16)
    match change:
        case "another":
            (source / "1.bmp").write_bytes(picture(9))
        case "one more":
            (source / "3.bmp").write_bytes(picture(9))
        case "renamed":
            (source / "1.bmp").rename(source / "9.bmp")
        case "removed":
            (source / "1.bmp").unlink()
    with pytest.raises(ValueError, match=r"other images than .*photos does now"):
        prepare(source, tmp_path / "out", 16)


def test_the_same_images_elsewhere(tmp_path):
    """Copied, with other dates; moved; and gone: what is decoded is still of them."""
    source = folder_of(tmp_path / "photos", 1, 2, 3)
    pixels = prepare(source, tmp_path / "out", 16)
    shutil.copytree(source, tmp_path / "copy")
    os.utime(source / "0.bmp", (1, 1))
    (source / ".DS_Store").touch()
    for place in (source, tmp_path / "copy"):
        np.testing.assert_array_equal(prepare(place, tmp_path / "out", 16).train, pixels.train)
    shutil.rmtree(source)
    np.testing.assert_array_equal(prepare(source, tmp_path / "out", 16).train, pixels.train)
    with pytest.raises(ValueError, match="other images"):
        prepare(tmp_path / "nowhere", tmp_path / "out", 16)


def test_pixels_of_an_earlier_version(tmp_path):
    """They know the folder's name alone."""
    source = folder_of(tmp_path / "photos", 1, 2, 3)
    pixels = prepare(source, tmp_path / "out", 16)
    written = tmp_path / "out" / "images.json"
    content = json.loads(written.read_text(encoding="utf-8"))
    del content["identity"]
    written.write_text(json.dumps(content), encoding="utf-8")
    np.testing.assert_array_equal(prepare(source, tmp_path / "out", 16).train, pixels.train)
    with pytest.raises(ValueError, match="other images"):
        prepare(folder_of(tmp_path / "others", 1, 2, 3), tmp_path / "out", 16)
    written.write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="out: damaged"):
        prepare(source, tmp_path / "out", 16)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_pixels_cut_short(split, tmp_path):
    source = folder_of(tmp_path / "photos", 1, 2, 3)
    prepare(source, tmp_path / "out", 16)
    os.truncate(tmp_path / "out" / f"{split}.uint8", 16 * 16 * 3 - 1)
    with pytest.raises(ValueError, match="out: damaged"):
        prepare(source, tmp_path / "out", 16)


def test_a_small_prior_has_generated_kernels(tmp_path):
    dataset = data.course_dataset(folder_of(tmp_path / "photos", *range(6)), size=12)
    assert all(dataset[i].y.shape == (12, 12, 3) for i in range(6))


@pytest.mark.parametrize(
    "changes",
    [
        {"train_offsets": np.array([0, 10, 5])},
        {"train_offsets": np.array([-5, 10])},
        {"train_offsets": np.array([0, 10**6])},
        {"train_offsets": np.array([0.0, 10.0])},
        {"train_offsets": np.array([[0, 10]])},
        {"train_bytes": np.zeros(2000, np.float32)},
    ],
    ids=["descending", "negative", "past the end", "floats", "2-D", "no bytes"],
)
def test_offsets_that_point_nowhere(changes, tmp_path):
    path = packed(tmp_path / "a.npz", 1, 2, **changes)
    for read in (lambda: data.load_images(path, (8, 8)), lambda: prepare(path, tmp_path / "o", 8)):
        with pytest.raises(ValueError, match=r"a\.npz: train_offsets are no ascending places"):
            read()


def test_a_damaged_picture_of_a_set_is_named(tmp_path):
    path = packed(tmp_path / "a.npz", 1, 2, 3)
    path.write_bytes(path.read_bytes().replace(picture(2)[:2], b"XX"))
    with pytest.raises(ValueError, match=r"a\.npz"):
        data.load_images(path, (8, 8))
    files = [picture(1), b"XX", picture(3)]
    np.savez(
        path,
        train_bytes=np.frombuffer(b"".join(files), np.uint8),
        train_offsets=np.cumsum([0, *map(len, files)]),
    )
    with pytest.raises(ValueError, match=r"a\.npz, train 1: not readable as an image"):
        data.load_images(path, (8, 8))


def test_an_npz_that_unpacks_to_much(tmp_path, monkeypatch):
    path = packed(
        tmp_path / "a.npz", 1, save=np.savez_compressed, train_bytes=np.zeros(10**6, "u1")
    )
    monkeypatch.setattr(limits, "PACKED_BYTES", 10**6)
    with pytest.raises(ValueError, match=r"a\.npz: .*got 1000128; JAXDIFF_MAX_PACKED_BYTES"):
        data.load_images(path, (8, 8))
    # One that is not compressed takes what it takes on disk.
    assert data.load_images(packed(tmp_path / "b.npz", *[1] * 1500), (8, 8)).shape[0] == 1500


def test_an_npz_whose_header_claims_more(tmp_path):
    header = io.BytesIO()
    fields = {"descr": "|u1", "fortran_order": False, "shape": (2**40,)}
    np.lib.format.write_array_header_1_0(header, fields)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("train_bytes.npy", header.getvalue() + b"short")
        archive.writestr("train_offsets.npy", header.getvalue())
    with pytest.raises(ValueError, match=r"a\.npz: not readable as an \.npz file"):
        data.load_images(tmp_path / "a.npz", (8, 8))


def test_images_that_cost_nothing(tmp_path):
    """A million places in a few bytes, and a million rows without a picture."""
    places = np.zeros(10**6, np.int64)
    path = packed(tmp_path / "a.npz", 1, save=np.savez_compressed, train_offsets=places)
    with pytest.raises(ValueError, match=r"a\.npz: train_offsets has 999999 images in \d+ bytes"):
        data.load_images(path, (8, 8))
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
    import pyarrow.parquet as parquet

    (tmp_path / "in").mkdir()
    made = pyarrow.table({"image": pyarrow.nulls(10**6, pyarrow.binary())})
    parquet.write_table(made, tmp_path / "in" / "train.parquet")
    with pytest.raises(ValueError, match=r"train\.parquet: 1000000 rows in \d+ bytes"):
        prepare(tmp_path / "in", tmp_path / "out", 16)


def test_rows_that_share_a_picture(tmp_path):
    """They are read without a copy for each: 2,000 of half a megabyte."""
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
    import pyarrow.parquet as parquet

    file = io.BytesIO()
    Image.fromarray(np.full((400, 400, 3), 7, np.uint8)).save(file, "BMP")
    shared = pyarrow.DictionaryArray.from_arrays([0] * 2000, [file.getvalue()])
    path = tmp_path / "train.parquet"
    parquet.write_table(pyarrow.table({"image": shared}), path, dictionary_pagesize_limit=2**20)
    assert path.stat().st_size < 10**6
    images = training_images(tmp_path)
    before = pyarrow.total_allocated_bytes()
    (_, source) = images["train"][7]
    assert source().getvalue() == file.getvalue()
    assert pyarrow.total_allocated_bytes() - before < 10**7


def test_parquet_by_parts(tmp_path):
    """Read a row group at a time, in order; a cell without bytes is skipped and counted."""
    cells = [{"bytes": picture(v) if v != 3 else None, "path": None} for v in range(7)]
    pixels = prepare(table(tmp_path / "in", column=cells), tmp_path / "out", 16)
    seen = sorted([*pixels.train[:, 0, 0, 0], *pixels.validation[:, 0, 0, 0]])
    assert seen == [0, 1, 2, 4, 5, 6]
    assert pixels.skipped == ["train.parquet, row 3: has no bytes"]
    flat = prepare(
        table(tmp_path / "flat", column=[picture(v) for v in range(7)]), tmp_path / "f", 16
    )
    assert sorted([*flat.train[:, 0, 0, 0], *flat.validation[:, 0, 0, 0]]) == list(range(7))


def test_a_row_that_is_not_there(tmp_path):
    """Of a damaged file, whose header claims it."""
    with pytest.raises(ValueError, match=r"t\.parquet: not readable as a \.parquet file"):
        _cell(lambda *_: [], tmp_path / "t.parquet", "image", 0, 3)


def test_parquet_without_images(tmp_path):
    with pytest.raises(
        ValueError, match=r"train\.parquet: has no column of images, but label, image"
    ):
        prepare(table(tmp_path / "in", column=["a", "b"]), tmp_path / "out", 16)
    (tmp_path / "in" / "train.parquet").write_bytes(b"PAR1 no table PAR1")
    with pytest.raises(ValueError, match=r"train\.parquet: not readable as a \.parquet file"):
        prepare(tmp_path / "in", tmp_path / "out", 16)
