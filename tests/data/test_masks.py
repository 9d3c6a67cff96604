"""Masks from pictures, and recipes whose paths hold the recipes' own signs."""

import numpy as np
import pytest
from PIL import Image

from jaxdiff.commands.cameras import operator

RIGHT = np.random.default_rng(3).random((16, 20)) < 0.6
WHITE = RIGHT.astype(np.uint8) * 255


def palette():
    image = Image.fromarray(RIGHT.astype(np.uint8), "P")
    image.putpalette([0, 0, 0, 255, 255, 255])
    return image


PICTURES = {
    "8 bits": lambda: Image.fromarray(WHITE),
    "1 bit": lambda: Image.fromarray(RIGHT),
    "16 bits": lambda: Image.fromarray(RIGHT.astype(np.uint16) * 65535),
    "numbers 0 and 1": lambda: Image.fromarray(RIGHT.astype(np.uint8)),
    "16 bits, 0 and 1": lambda: Image.fromarray(RIGHT.astype(np.uint16)),
    "palette": palette,
    "rgb": lambda: Image.fromarray(WHITE).convert("RGB"),
    "opaque": lambda: Image.fromarray(WHITE).convert("RGBA"),
    "grey, opaque": lambda: Image.fromarray(WHITE).convert("LA"),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_every_way_to_write_a_mask(kind, tmp_path):
    PICTURES[kind]().save(tmp_path / "mask.png")
    mask = operator(f"mask:{tmp_path}/mask.png", RIGHT.shape).mask
    np.testing.assert_array_equal(mask[..., 0], RIGHT)


@pytest.mark.parametrize("background", [0, 128, 255])
def test_transparency_is_no_mask(background, tmp_path):
    grey = Image.fromarray(np.full(RIGHT.shape, background, np.uint8))
    image = Image.merge("LA", [grey, Image.fromarray(WHITE)])
    for mode in ("LA", "RGBA"):
        image.convert(mode).save(tmp_path / "mask.png")
        with pytest.raises(ValueError, match=r"mask\.png: .* transparent in places"):
            operator(f"mask:{tmp_path}/mask.png", RIGHT.shape)


def test_a_photograph_is_hardly_a_mask(tmp_path, photograph):
    Image.fromarray(np.round(photograph * 255).astype(np.uint8)).save(tmp_path / "mask.png")
    with pytest.warns(UserWarning, match=r"mask\.png: \d+% .* neither black nor white"):
        operator(f"mask:{tmp_path}/mask.png", (64, 64))


@pytest.mark.parametrize(
    "name", ["mask@2x.png", "[final] mask.png", "me@example.com/Drive/m.png", "a@grey.png"]
)
def test_recipes_with_signs_in_their_paths(name, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(WHITE).save(path)
    np.testing.assert_array_equal(operator(f"mask:{path}", RIGHT.shape).mask[..., 0], RIGHT)
    both = operator(f"crop:2@mask:{path}", RIGHT.shape)
    assert both(np.ones((*RIGHT.shape, 3))).shape == (12, 16, 3)
    kernel = path.with_suffix(".npy")
    np.save(kernel, np.ones((3, 3)) / 9)
    assert operator(f"grey@blur:{kernel}", (8, 8))(np.ones((8, 8, 3))).shape == (8, 8, 1)
    with pytest.raises(ValueError, match="operator 'crop:two'"):
        operator(f"crop:two@mask:{path}@blurr:x", RIGHT.shape)


@pytest.mark.parametrize(
    "recipe",
    ["", "blur:", "mask", "mask:0.3.3", "mask:1.5", "crop:8.5", "grey:1", "@grey", "grey@" * 999],
)
def test_recipes_that_are_none(recipe):
    with pytest.raises(ValueError, match=r"^operator.*: .*expected") as error:
        operator(recipe, (64, 64))
    assert len(str(error.value)) < 300
