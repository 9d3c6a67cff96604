"""Figures: whole pixels, no orphans, and titles that say what was done."""

import numpy as np
import pytest

import jaxdiff as jd
from jaxdiff import plot
from jaxdiff.samplers.presets import NAMES


def drawn(figure) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]


@pytest.mark.parametrize("size", [(8, 8), (33, 33), (64, 64), (100, 60), (256, 256)])
def test_a_pixel_is_a_square_of_whole_pixels(size):
    """Of the figure as it is saved: its panel is the image magnified, to the last pixel."""
    image = np.random.default_rng(0).integers(0, 255, (*size, 3)).astype("u1")
    picture = drawn(plot.comparison([("a", image / 255), ("b", 1 - image / 255)]))
    factor = -(-180 // max(size))
    large = image.repeat(factor, 0).repeat(factor, 1)
    found = [
        (top, left)
        for top, left in np.argwhere((picture == large[0, 0]).all(-1))
        if np.array_equal(picture[top : top + large.shape[0], left : left + large.shape[1]], large)
    ]
    assert len(found) == 1


@pytest.mark.parametrize(
    ("count", "most", "rows"),
    [
        (1, 5, [1]),
        (5, 5, [5]),
        (6, 5, [3, 3]),
        (7, 5, [4, 3]),
        (9, 6, [3, 3, 3]),
        (11, 5, [4, 4, 3]),
    ],
)
def test_no_row_is_an_orphan(count, most, rows):
    columns = plot._columns(count, most)
    full, rest = divmod(count, columns)
    assert [columns] * full + [rest] * (rest > 0) == rows


def test_titles_stand_at_one_height():
    """Those of one line and of two, on a figure with a row that is not full."""
    panels = [(f"one {i}" + "\n2 dB" * (i % 2), np.zeros((8, 8, 3))) for i in range(7)]
    figure = plot.comparison(panels, np.ones((8, 8, 3)))
    figure.canvas.draw()
    boxes = [axis.title.get_window_extent() for axis in figure.axes if axis.get_title()]
    tops = [box.y1 for box in boxes]
    assert np.allclose(tops[:4], tops[0], atol=2) and np.allclose(tops[4:], tops[4], atol=2)
    assert all(
        0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1 for box in boxes
    )


def test_the_colour_bar_is_beside_its_own_panel():
    figure = plot.posterior(np.random.default_rng(0).random((5, 8, 8, 3)), shown=4)
    figure.canvas.draw()
    (panel,) = (axis for axis in figure.axes if axis.get_title().startswith("standard"))
    (bar,) = panel.child_axes
    panel, bar = panel.get_window_extent(), bar.get_tightbbox()
    assert 0 < bar.x0 - panel.x1 < 20 and bar.x1 < figure.bbox.x1
    others = [axis.get_window_extent() for axis in figure.axes if axis.get_title()]
    assert not any(box.overlaps(bar) for box in others)


@pytest.mark.parametrize("size", [(64, 64), (270, 480), (400, 1000)])
def test_the_colour_bar_and_its_numbers_are_within_the_figure(size):
    x = np.random.default_rng(0).random((*size, 3))
    figure = plot.comparison([("a", x)], std=x)
    figure.canvas.draw()
    bars = [a for axis in figure.axes for a in axis.child_axes]
    (bar,) = bars
    box = bar.get_tightbbox()
    assert 0 < box.x0 and box.x1 <= figure.bbox.x1 and len(bar.get_yticklabels()) > 2


def test_what_degraded_is_said():
    blur, smaller = jd.operators.Blur(np.ones((3, 3)) / 9, (8, 8)), jd.operators.Downsample(4)
    mask = jd.operators.Mask(np.arange(64).reshape(8, 8) % 4 == 0)
    for operator, said in [
        (blur, "blur"),
        (mask, "75% missing"),
        (jd.operators.Grey(), "grey"),
        (smaller @ blur, "blur, ×4 smaller"),
    ]:
        title, _ = plot.degraded(operator, np.zeros((8, 8, 3)), 10 / 255)
        assert title == f"degraded: {said}, σ = 10/255"
    assert plot.degraded(blur, np.zeros((8, 8, 3)))[0] == "degraded: blur"


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="panels: expected at least one picture"):
        plot.comparison([])


def test_every_sampler_has_a_name_that_people_say():
    assert set(NAMES) <= set(plot.LABELS)
