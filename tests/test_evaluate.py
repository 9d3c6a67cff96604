"""`jaxdiff evaluate` and the course's data set."""

import dataclasses
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image

import jaxdiff as jd
from jaxdiff import data, plot
from jaxdiff.commands.evaluate import _dataset, evaluate, read
from tests.conftest import shared

GRID = {"samplers": ["dps"], "steps": [2, 3]}


@pytest.fixture(scope="module")
def denoiser(tiny):
    return jd.Denoiser(*jd.load(tiny))


@pytest.fixture(scope="module")
def dataset():
    faces = data.faces()
    return data.Dataset(
        {k: faces[k] for k in "012"}, [data.motion_kernel(9, 0), data.motion_kernel(17, 1)], seed=5
    )


@pytest.fixture(scope="module")
def uninterrupted(dataset, denoiser, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluation") / "out"
    return out, evaluate(dataset, denoiser, **GRID, out=out)


def test_results(dataset, uninterrupted):
    out, rows = uninterrupted
    assert len(rows) == 2 * 3 and rows == read(out / "results.csv")
    table = (out / "results.md").read_text()
    assert table.count("±") == 1 + 2 * 2
    assert {r["sigma"] for r in rows} == {dataset[i].sigma for i in range(3)}
    with Image.open(out / "results.png") as image:
        assert image.size[0] > 500


def test_whatever_the_batch(dataset, denoiser, uninterrupted, tmp_path):
    """Image i has its own key, kernel and σ: alone or in a batch that is filled up."""
    rows = evaluate(
        dataset, denoiser, samplers=["dps"], steps=[2], out=tmp_path / "out", batch_size=2
    )
    alone = [r for r in uninterrupted[1] if (r["sampler"], r["steps"]) == ("dps", 2)]
    for a, b in zip(rows, alone, strict=True):
        assert a["image"] == b["image"]
        assert a["psnr"] == pytest.approx(b["psnr"], abs=1e-3)


def test_killed_and_started_again(dataset, denoiser, tiny, uninterrupted, tmp_path):
    """SIGKILL after the first rows; the second run repeats none and ends with the same file."""
    out = tmp_path / "out"
    code = (
        "import jaxdiff as jd; from jaxdiff import data; from jaxdiff.commands.evaluate import evaluate;"
        "f = data.faces();"
        "d = data.Dataset({k: f[k] for k in '012'},"
        "[data.motion_kernel(9, 0), data.motion_kernel(17, 1)], seed=5);"
        f"evaluate(d, jd.Denoiser(*jd.load({str(tiny)!r})), **{GRID!r}, out={str(out)!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 300
    while not (out / "results.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = read(out / "results.csv")
    assert 0 < len(before) < 6, "killed in the middle"
    rows = evaluate(dataset, denoiser, **GRID, out=out)
    assert all(row in rows for row in before)
    assert (out / "results.csv").read_bytes() == (uninterrupted[0] / "results.csv").read_bytes()


def test_finished_work_is_not_repeated(dataset, denoiser, uninterrupted, monkeypatch):
    out, rows = uninterrupted
    monkeypatch.setattr(jd, "sample", None)
    assert evaluate(dataset, denoiser, **GRID, out=out) == rows


def test_bad_calls(dataset, denoiser, uninterrupted, tmp_path):
    with pytest.raises(ValueError, match="another seed"):
        evaluate(
            data.Dataset(dataset.images, dataset.kernels, seed=6),
            denoiser,
            **GRID,
            out=uninterrupted[0],
        )
    with pytest.raises(ValueError, match="another data"):
        evaluate(
            data.Dataset(dataset.images, dataset.kernels[:1], seed=5),
            denoiser,
            **GRID,
            out=uninterrupted[0],
        )
    other = jax.tree.map(lambda leaf: leaf * 1.01, denoiser)
    with pytest.raises(ValueError, match=r"another weights: .*--overwrite"):
        evaluate(dataset, other, **GRID, out=uninterrupted[0])
    with pytest.raises(ValueError, match="expected one of"):
        evaluate(dataset, denoiser, samplers=["x"], out=tmp_path / "a")
    with pytest.raises(ValueError, match="steps"):
        evaluate(dataset, denoiser, steps=[2000], out=tmp_path / "a")
    (tmp_path / "mine.txt").touch()
    with pytest.raises(ValueError, match="other files"):
        evaluate(dataset, denoiser, **GRID, out=tmp_path)
    assert not (tmp_path / "a").exists()


def test_another_table(dataset, denoiser, tiny, tmp_path):
    """Identity is content: a table that was measured anew is another one; none is not compared."""
    table = jd.SpectralCovariance.load(tiny)
    one = data.Dataset({"0": dataset.images["0"]}, dataset.kernels, seed=5)
    grid = {"samplers": ["spectral"], "steps": [2], "out": tmp_path / "out"}
    rows = evaluate(one, denoiser, **grid, covariance=table)
    other = dataclasses.replace(table, table=table.table * 1.01)
    with pytest.raises(ValueError, match="another table"):
        evaluate(one, denoiser, **grid, covariance=other)
    evaluate(one, denoiser, samplers=["dps"], steps=[2], out=tmp_path / "out")
    assert evaluate(one, denoiser, **grid, covariance=table) == rows
    again = evaluate(one, denoiser, **grid, covariance=other, overwrite=True)
    assert again != rows and len(read(tmp_path / "out/results.csv")) == 1


@pytest.mark.parametrize("shape", [(16, 16, 3), (16, 16, 1), (12, 20, 3)])
def test_small_and_grey_priors(shape, tmp_path):
    """Kernels are no larger than the images, and what macOS leaves beside them is neither."""
    (tmp_path / "__MACOSX").mkdir()
    for name in ("a.png", "b.png"):
        data.write_image(tmp_path / name, np.full((*shape[:2], shape[2]), 0.5))
        (tmp_path / "__MACOSX" / f"._{name}").write_bytes(b"no picture")
    (tmp_path / "._kernels.mat").write_bytes(b"no kernels")
    sets = [_dataset(tmp_path, shape, 0, "resize")]
    sets += [_dataset(None, shape, 0, "resize")] if shape[0] == shape[1] else []
    for found, bad in sets:
        assert not bad and {image.shape for image in found.images.values()} == {shape}
        assert max(side for kernel in found.kernels for side in kernel.shape) <= min(shape[:2])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_restoration_that_is_not_finite(value, dataset, denoiser, tmp_path, monkeypatch):
    """One error, the rows before it stay; of a first row, the folder is free for others."""
    real, calls = jd.sample, []

    def sample(*args, **kwargs):
        calls.append(1)
        drawn = real(*args, **kwargs)
        return drawn.at[0, 0, 1, 2, 0].set(value) if len(calls) % 2 == 0 else drawn

    monkeypatch.setattr(jd, "sample", sample)
    with pytest.raises(ValueError, match="1: dps in 2 steps gave an image that is not finite"):
        evaluate(dataset, denoiser, **GRID, out=tmp_path / "out")
    assert [row["image"] for row in read(tmp_path / "out/results.csv")] == ["0"]
    calls[:] = [1]
    with pytest.raises(ValueError, match="not finite"):
        evaluate(dataset, denoiser, **GRID, out=tmp_path / "first")
    assert not (tmp_path / "first").exists()


def test_dataset_is_the_courses(dataset):
    """y − k * x is noise of the drawn σ, the kernel padded around its middle, sums untouched."""
    for i in range(3):
        m = dataset[i]
        assert m.kernel.shape == (33, 33) and m.kernel.sum() == pytest.approx(1)
        residual = m.y - np.asarray(jd.operators.Blur(m.kernel, (64, 64))(m.image))
        assert residual.std() == pytest.approx(m.sigma, rel=0.03)
        assert m.sigma in dataset.sigmas
        np.testing.assert_array_equal(m.y, dataset[i].y)
    even = data.Dataset(dataset.images, [2 * np.ones((4, 6)) / 24], seed=0)[0]
    blurred = jd.operators.Blur(np.ones((4, 6)) / 12, (64, 64))(even.image)
    assert np.std(even.y - blurred) == pytest.approx(even.sigma, rel=0.03)
    with pytest.raises(ValueError, match="kernels"):
        data.Dataset(dataset.images, [])


def test_course_layout():
    """A folder of images and a .mat, wherever in it."""
    folder = shared("data")
    dataset = data.course_dataset(folder, size=64)
    assert len(dataset) == 23 and dataset[22].image.shape == (64, 64, 3)


def test_figures_are_drawn():
    samples = np.random.default_rng(0).random((3, 8, 8, 3))
    before = [("degraded", samples[1])]

    def titles(figure):
        return [axis.get_title().split("\n")[0] for axis in figure.axes if axis.get_title()]

    assert titles(plot.posterior(samples, samples[0], before=before, shown=2)) == [
        "ground truth",
        "degraded",
        "posterior sample 1",
        "posterior sample 2",
        "posterior mean",
        "standard deviation",
    ]
    assert titles(plot.posterior(samples[:1])) == ["posterior sample 1"]
    assert titles(plot.strip(samples, [9, 5, 0], 2)) == ["t = 9", "t = 0"]
    figure = plot.schedule(jd.Schedule.from_config(), (1000, 100))
    assert titles(figure) == ["β", "α", "ᾱ", "η = β/√α", "σ"]
    assert [len(axis.lines[1].get_xdata()) for axis in figure.axes] == [100] * 5
    (axis,) = plot.differences({"a": np.ones(3)}, [0.1]).axes
    assert len(axis.lines) == 2 and axis.get_yscale() == "log"
