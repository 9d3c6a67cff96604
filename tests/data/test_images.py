"""Pictures as cameras and programs write them, read once for restoration, masks and training."""

import io
import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, features

from jaxdiff import data
from jaxdiff.data.pixels import prepare
from jaxdiff.util import limits

SMOOTH = np.stack(np.meshgrid(np.linspace(0.1, 0.9, 24), np.linspace(0.2, 0.8, 20)), -1)
RGB = np.concatenate([SMOOTH, SMOOTH[:, :, :1] * SMOOTH[:, :, 1:]], -1)
RGB8 = np.round(RGB * 255).astype(np.uint8)
GREY = SMOOTH[:, :, 0]


def picture():
    return Image.fromarray(RGB8)


def lab(image=None):
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.profileToProfile(image or picture(), *profiles, outputMode="LAB")


GREY16 = np.round(GREY * 65535).astype(np.uint16)
# A file's name, what saves it, the values that it holds and how nearly.
READ = {
    "8-bit.png": (picture, RGB8 / 255, 1e-7),
    "grey.png": (lambda: picture().convert("L"), np.asarray(picture().convert("L")) / 255, 1e-7),
    "16-bit.png": (lambda: Image.fromarray(GREY16), GREY16 / 65535, 1e-7),
    "16-bit.tif": (lambda: Image.fromarray(GREY16), GREY16 / 65535, 1e-7),
    "16-bit.pgm": (lambda: Image.fromarray(GREY16), GREY16 / 65535, 1e-7),
    "float.tif": (lambda: Image.fromarray(GREY.astype(np.float32)), GREY, 1e-7),
    "1-bit.png": (lambda: Image.fromarray(GREY > 0.5), GREY > 0.5, 0),
    "1-bit.tif": (lambda: Image.fromarray(GREY > 0.5), GREY > 0.5, 0),
    "opaque.png": (lambda: picture().convert("RGBA"), RGB8 / 255, 1e-7),
    "opaque-grey.png": (
        lambda: picture().convert("L").convert("LA"),
        np.asarray(picture().convert("L")) / 255,
        1e-7,
    ),
    "ycbcr.tif": (lambda: picture().convert("YCbCr"), RGB, 0.02),
    "lab.tif": (lab, RGB, 0.03),
    "cmyk.tif": (lambda: picture().convert("CMYK"), RGB, 0.01),
    "cmyk.jpg": (lambda: picture().convert("CMYK"), RGB, 0.1),
    "photo.jfif": (picture, RGB, 0.1),
    "palette.png": (lambda: picture().quantize(256), RGB, 0.1),
    "photo.gif": (lambda: picture().quantize(256), RGB, 0.1),
    "photo.ppm": (picture, RGB8 / 255, 1e-7),
    "photo.bmp": (picture, RGB8 / 255, 1e-7),
    "PHOTO.PNG": (picture, RGB8 / 255, 1e-7),
}


@pytest.mark.parametrize("name", READ)
def test_every_way_to_store_a_picture(name, tmp_path):
    """The same values in restoration as in training, there rounded to 8 bits."""
    make, expected, tolerance = READ[name]
    expected = np.asarray(expected, np.float64).reshape(20, 24, -1)
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / name
    make().save(path)
    image = data.read_image(path, expected.shape[2])
    assert image.dtype == np.float32 and image.shape == expected.shape
    np.testing.assert_allclose(image, expected, atol=tolerance)
    path.with_name("b" + name).write_bytes(path.read_bytes())
    pixels = prepare(path.parent, tmp_path / "out", 20, expected.shape[2])
    (seen,) = pixels.train
    np.testing.assert_array_equal(seen, data.to_uint8(image)[:, 2:22])


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif(tmp_path):
    picture().save(tmp_path / "a.avif", quality=95)
    np.testing.assert_allclose(data.read_image(tmp_path / "a.avif"), RGB, atol=0.1)
    assert data.list_images(tmp_path) == [tmp_path / "a.avif"]


def test_values_are_those_of_float64():
    """Divided in float32, which takes a third of the memory; every value there is."""
    every = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    file = io.BytesIO()
    every.save(file, "PNG")
    file.seek(0)
    expected = (np.arange(256) / 255).astype(np.float32)
    np.testing.assert_array_equal(data.read_image(file, 1, "every").ravel(), expected)


# By EXIF's definition: what a viewer does to the stored rows and columns.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif", "deep.png", "deep.tif"])
def test_pictures_are_upright(name, orientation, tmp_path):
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / name
    stored = Image.fromarray(GREY16) if "deep" in name else picture()
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(path, exif=exif, **({"lossless": True} if name == "a.webp" else {}))
    flat = GREY16[..., None] / 65535 if "deep" in name else RGB
    expected = UPRIGHT[orientation](flat)
    image = data.read_image(path, expected.shape[2])
    np.testing.assert_allclose(image, expected, atol=0.1 if name == "a.jpg" else 0.01)
    path.with_name(f"b{name}").write_bytes(path.read_bytes())
    pixels = prepare(path.parent, tmp_path / "out", 20, expected.shape[2], crop=True)
    np.testing.assert_array_equal(pixels.train[0], data.to_uint8(image))


def test_damaged_exif_turns_nothing(tmp_path):
    picture().save(tmp_path / "a.png", exif=b"Exif\0\0MM\0*\0\0\0\x99")
    np.testing.assert_allclose(data.read_image(tmp_path / "a.png"), RGB8 / 255, atol=1e-7)


def soft():
    image = picture().convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def keyed():
    image = picture().quantize(16)
    image.info["transparency"] = 3
    return image


REFUSED = {
    "soft.png": (soft, "transparent in places"),
    "soft.webp": (soft, "transparent in places"),
    "soft-grey.png": (lambda: soft().convert("LA"), "transparent in places"),
    "keyed.png": (keyed, "transparent in places"),
    "wide.tif": (
        lambda: Image.fromarray(GREY.astype(np.float32) * 255),
        r"floats from .* \[0, 1\]",
    ),
    "nan.tif": (lambda: Image.fromarray(np.full((9, 9), np.nan, np.float32)), "floats"),
    "int.tif": (lambda: Image.fromarray(GREY16.astype(np.int32)), "I pixels"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_pictures_without_an_agreed_meaning(name, tmp_path):
    """One error that names the file; training skips and counts it."""
    make, message = REFUSED[name]
    for split in ("train", "validation"):
        (tmp_path / "in" / split).mkdir(parents=True)
        picture().save(tmp_path / "in" / split / "a.png")
    path = tmp_path / "in" / "train" / name
    make().save(path)
    for channels in (1, 3, None):
        with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}: .*{message}"):
            data.read_image(path, channels)
    pixels = prepare(tmp_path / "in", tmp_path / "out", 16)
    assert len(pixels.train) == 1 and len(pixels.skipped) == 1
    assert re.match(rf"train/{re.escape(name)}: .*{message}", pixels.skipped[0])


def test_white_that_is_0(tmp_path):
    Image.fromarray(GREY16).save(tmp_path / "a.tif", tiffinfo={262: 0})
    with pytest.raises(ValueError, match=r"a\.tif: .* 0 is white"):
        data.read_image(tmp_path / "a.tif", 1)


def png(width, height):
    """A PNG that claims a size and holds ten bytes."""

    def chunk(kind, content):
        sealed = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + sealed

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 10))
    return b"\x89PNG\r\n\x1a\n" + parts + chunk(b"IEND", b"")


def test_a_ceiling_on_pixels(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(png(8000, 7000))
    with pytest.raises(ValueError, match=r"a\.png: .*8000×7000 pixels: .*JAXDIFF_MAX_PIXELS"):
        data.read_image(tmp_path / "a.png")
    picture().save(tmp_path / "b.bmp")
    monkeypatch.setattr(limits, "PIXELS", 20 * 24)
    assert data.read_image(tmp_path / "b.bmp").shape == (20, 24, 3)
    monkeypatch.setattr(limits, "PIXELS", 20 * 24 - 1)
    with pytest.raises(ValueError, match=r"b\.bmp: .*24×20 pixels"):
        data.read_image(tmp_path / "b.bmp")


def test_a_ceiling_from_the_environment():
    code = "from jaxdiff.util import limits; print(limits.PIXELS, limits.KERNEL_BYTES)"
    environment = os.environ | {"JAXDIFF_MAX_PIXELS": "123", "JAXDIFF_MAX_KERNEL_BYTES": "4"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "123 4\n"


def test_strips_that_a_tiff_claims(tmp_path):
    """16 rows of pixels and a height of 16,000: Pillow makes the others black."""
    file = io.BytesIO()
    Image.fromarray(RGB8[:16, :16]).save(file, "TIFF")
    height = struct.pack("<HHI", 257, 4, 1) + struct.pack("<I", 16)
    found = next(
        k for k in (height, struct.pack("<HHIHH", 257, 3, 1, 16, 0)) if k in file.getvalue()
    )
    claimed = struct.pack("<HHII", 257, 4, 1, 16_000)
    (tmp_path / "a.tif").write_bytes(file.getvalue().replace(found, claimed))
    with pytest.raises(ValueError, match=r"a\.tif: cut short"):
        data.read_image(tmp_path / "a.tif")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage",
        b"\x89HDF\r\n\x1a\n",
    ],
    ids=["empty", "html", "postscript", "hdf5"],
)
@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_other_files_named_as_pictures(content, name, tmp_path, monkeypatch):
    """A PostScript file makes Pillow run Ghostscript, where it may."""
    monkeypatch.setattr(subprocess, "Popen", None)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}: not readable as an image"):
        data.read_image(tmp_path / name)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "gif", "bmp"])
def test_pictures_cut_short_anywhere(suffix, tmp_path):
    """Read as far as the format lets, or refused by name."""
    path = tmp_path / f"a.{suffix}"
    picture().save(path)
    content = path.read_bytes()
    refused = 0
    for n in range(0, len(content), max(1, len(content) // 60)):
        path.write_bytes(content[:n])
        try:
            data.read_image(path, None)
        except ValueError as e:
            refused += 1
            assert str(e).startswith(f"{path}: ") and "\n" not in str(e)
    assert refused > 30


def test_absent_and_unreadable_stay_what_they_are(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.png: no such image"):
        data.read_image(tmp_path / "a.png")
    with pytest.raises(IsADirectoryError):
        data.read_image(tmp_path)


def test_which_files_of_a_folder_are_read(tmp_path):
    for name in ("b.GIF", "a.png", "c.pgm", "sub/d.jfif", ".hidden/e.png", "__MACOSX/f.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture().save(tmp_path / name)
    for name in ("._a.png", "__MACOSX/._a.png", "sub/._d.jfif", ".DS_Store", "notes.txt"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    assert [p.name for p in data.list_images(tmp_path)] == ["a.png", "b.GIF", "c.pgm"]
    assert len(data.load_images(tmp_path, (8, 8), channels=3, n=2)) == 2
    dataset = data.course_dataset(tmp_path / "sub", size=16)
    assert list(dataset.images) == ["d.jfif"]
    for name in ("x.heic", "x.jp2", "x.CR2"):
        (tmp_path / name).touch()
    with pytest.warns(UserWarning, match=r"3 pictures left out, such as x\.(heic|jp2|CR2)"):
        assert len(data.list_images(tmp_path)) == 3
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "x.heic").touch()
    with pytest.raises(ValueError, match=r"holds no images .*but x\.heic, which is not read"):
        data.list_images(tmp_path / "only")


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"\xff\xfe.png", b"a\x80[final].png"])
def test_names_that_are_no_utf8(name, tmp_path):
    folder = tmp_path / "in" / "train"
    folder.mkdir(parents=True)
    path = folder / os.fsdecode(name)
    try:
        picture().save(path)
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    dataset = data.course_dataset(folder, size=16)
    (known,) = dataset.images
    assert known.encode() and known.endswith(".png") and "\\x" in known
    path.write_bytes(b"")
    for call in (lambda: data.read_image(path), lambda: data.course_dataset(folder)):
        with pytest.raises(ValueError, match="not readable as an image") as error:
            call()
        assert str(error.value).encode() and known in str(error.value)
    for split in ("train", "val"):
        (tmp_path / "in" / split).mkdir(exist_ok=True)
        picture().save(tmp_path / "in" / split / "a.png")
    (skipped,) = prepare(tmp_path / "in", tmp_path / "out", 16).skipped
    assert skipped.encode() and known in skipped


def test_grey_priors(tmp_path):
    """Images of one channel, of a folder and bundled."""
    assert data.course_dataset(size=32, channels=1)[0].y.shape == (32, 32, 1)
    Image.fromarray(RGB8[..., 0]).save(tmp_path / "a.png")
    assert data.load_images(tmp_path, (16, 16), channels=1).shape == (1, 16, 16, 1)
    assert data.course_dataset(tmp_path, 32, channels=1)[0].image.shape == (32, 32, 1)
    with pytest.raises(ValueError, match=r"a\.png: has 1 channels, the prior has 3"):
        data.load_images(Path(tmp_path), (16, 16))


def test_a_picture_that_does_not_fit_is_named(tmp_path):
    Image.fromarray(RGB8).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png: is 20×24, too small to crop"):
        data.course_dataset(tmp_path, 32, how="crop")


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_a_picture_keeps_its_transparency_and_profile(mode, tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, len(mode)), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=profile)
    picture = data.read_picture(tmp_path / "a.png")
    assert picture.profile == profile
    np.testing.assert_array_equal(picture.image, pixels[..., :-1].astype("f") / np.float32(255))
    data.write_image(tmp_path / "b.png", *picture)
    with Image.open(tmp_path / "b.png") as again:
        assert again.mode == mode and again.info["icc_profile"] == profile
        np.testing.assert_array_equal(np.asarray(again), pixels)


def test_an_opaque_picture_has_no_alpha(tmp_path):
    Image.fromarray(np.full((9, 7, 4), 255, np.uint8)).save(tmp_path / "a.png")
    assert data.read_picture(tmp_path / "a.png").alpha is None
