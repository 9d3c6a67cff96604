"""The pictures of 16 bits a channel, read by hand."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxdiff.commands.pictures import write_png16


def decoded(path: Path) -> np.ndarray:
    """A PNG of ours, read by hand; Pillow reads the upper 8 bits of such colours."""
    content = path.read_bytes()
    width, height, bits, colour = struct.unpack(">2I2B", content[16:26])
    start = content.index(b"IDAT")
    (length,) = struct.unpack(">I", content[start - 4 : start])
    rows = np.frombuffer(zlib.decompress(content[start + 4 : start + 4 + length]), np.uint8)
    rows = rows.reshape(height, -1)
    assert bits == 16 and not rows[:, 0].any()
    values = rows[:, 1:].copy().view(">u2").reshape(height, width, {0: 1, 2: 3}[colour])
    with Image.open(path) as picture:
        picture.load()
        high = np.asarray(picture).reshape(values.shape)
    np.testing.assert_array_equal(high, values if colour == 0 else values >> 8)
    return values


@pytest.mark.parametrize("shape", [(5, 7, 1), (7, 5, 3), (1, 1, 3)])
def test_16_bits(shape, tmp_path):
    image = np.random.default_rng(0).random(shape) * 1.2 - 0.1
    write_png16(tmp_path / "a.png", image)
    expected = np.round(np.clip(image, 0, 1) * 65535)
    np.testing.assert_array_equal(decoded(tmp_path / "a.png"), expected)
