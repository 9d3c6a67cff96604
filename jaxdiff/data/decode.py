"""Image files to pixels of one meaning: upright, opaque, grey or RGB."""

import io
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

from jaxdiff.data.inputs import Refused, reading
from jaxdiff.util import limits

# Pillow asks every plugin that it has whether a file is its own, and one of them runs Ghostscript.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF", "HEIF")
IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".tiff"),
    *(".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".avif"),
    *([".heic"] if find_spec("pillow_heif") else []),
)
_SCANS = 40  # of the largest image
_WITH_ALPHA = {"LA": "LA", "La": "LA", "PA": "RGBA", "RGBA": "RGBA", "RGBa": "RGBA"}


def decode(file: str | Path | IO[bytes], name: object, transparent: bool = False) -> Image.Image:
    """An image file as Pillow's "L" or "RGB", or as "F" in [0, 1] where it has more than 8 bits.

    It is turned as its EXIF orientation says, and of several frames it is the first. Palettes,
    1-bit, CMYK, YCbCr and Lab become RGB or grey; an alpha channel that is opaque everywhere is
    left out, and of another one the image is "LA" or "RGBA" where it may be `transparent`. Of RGB
    with 16 bits a channel Pillow keeps the upper 8; its colour profile is not applied. HEIC is read
    where pillow-heif is installed.

    Raises:
        FileNotFoundError; ValueError: naming `name`, for a file that is damaged, larger than
        `limits.PIXELS`, transparent in places where it may not be, or whose numbers have no agreed white.
    """
    with reading(name, "an image"):
        # Into memory first: from a file, Pillow reads as much as a damaged length says.
        content = Path(file).read_bytes() if isinstance(file, str | Path) else file.read()
        try:
            image = Image.open(io.BytesIO(content), formats=_formats())
        except UnidentifiedImageError:
            raise ValueError(f"no {', '.join(_formats()[:-1])} or {_formats()[-1]}") from None
        _check_size(image)
        if image.format in ("JPEG", "MPO"):
            _check_scans(image, content)
        image.load()
        if _turned(image):
            ImageOps.exif_transpose(image, in_place=True)
        return _plain(image, transparent)


@cache
def _formats() -> tuple[str, ...]:
    """Of those, what this Pillow was built with."""
    Image.init()
    if find_spec("pillow_heif"):
        import_module("pillow_heif").register_heif_opener()
    return tuple(f for f in _FORMATS if f in Image.OPEN)


def _check_size(image) -> None:
    width, height = image.size
    limits.check(f"{width}×{height} pixels", width * height, "PIXELS")
    if image.format == "TIFF":  # whose missing strips Pillow makes black
        boxes = [tile[1] for tile in image.tile]
        if sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes) < width * height:
            raise Refused("cut short: parts of it are missing")


def _check_scans(image, content: bytes) -> None:
    """Of a progressive JPEG each scan, which may be a few bytes, passes over all pixels again."""
    scans = content.count(b"\xff\xda")
    if scans * image.width * image.height > _SCANS * limits.PIXELS:
        raise Refused(f"{scans} scans of {image.width}×{image.height} pixels: save it again")


def _turned(image) -> bool:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    except Exception:  # damaged EXIF says nothing, and viewers show the picture as it lies
        return False


def _plain(image, transparent: bool) -> Image.Image:
    mode = image.mode
    if "transparency" in image.info or mode in _WITH_ALPHA:
        return _opaque(image, transparent)
    if mode in ("L", "RGB"):
        return image
    if mode == "1":
        return image.convert("L")
    if mode in ("P", "RGBX", "YCbCr"):
        return image.convert("RGB")
    if mode == "CMYK" and "icc_profile" not in image.info:
        return image.convert("RGB")
    if mode in ("CMYK", "LAB"):
        profile: Any = ImageCms.createProfile("LAB")
        if mode == "CMYK":
            profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        # Not optimized into tables, which err by a seventh in dark colours.
        flags = ImageCms.Flags.NOOPTIMIZE
        converted: Any = ImageCms.profileToProfile(
            image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB", flags=flags
        )
        return converted
    return _deep(image)


def _opaque(image, transparent: bool) -> Image.Image:
    """Without an alpha channel that says nothing."""
    mode = image.mode
    wanted = _WITH_ALPHA.get(mode, "LA" if mode in ("1", "L") else "RGBA")
    image = image.convert(wanted)
    if image.getchannel("A").getextrema()[0] < 255:
        if transparent:
            return image
        raise Refused(
            f"{len(wanted)} channels ({wanted}), transparent in places: put it on a background, "
            "and a mask into black and white"
        )
    return image.convert(wanted.removesuffix("A"))


def _deep(image) -> Image.Image:
    """More than 8 bits of grey, divided by their white."""
    tags = getattr(image, "tag_v2", {})
    if tags.get(262) == 0:  # PhotometricInterpretation, which Pillow heeds for 8 bits alone
        raise Refused(f"{image.mode} pixels of which 0 is white: save it with 0 as black")
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        bits = tags.get(258, (16,))[0]
        white = np.float32(2**bits - 1)
        return Image.fromarray(np.divide(np.asarray(image), white, dtype=np.float32))
    if image.mode != "F":
        raise Refused(f"{image.mode} pixels: save it with 8 or 16 bits a channel")
    low, high = image.getextrema()
    array = np.asarray(image)
    if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
        raise Refused(f"floats from {low:g} to {high:g}: expected them in [0, 1]")
    return image
