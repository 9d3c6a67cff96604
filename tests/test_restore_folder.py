"""A folder of images on the command line: each as soon as it is done, resumed, under safe names."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import jaxdiff as jd
from jaxdiff import data, restoration
from jaxdiff.cli import app
from jaxdiff.commands import images
from jaxdiff.commands.noise_level import estimate_sigma
from tests.conftest import xla_flags
from tests.test_pictures import decoded
from tests.test_runs import NASTY

pytestmark = [
    pytest.mark.usefixtures("uncached"),
    pytest.mark.filterwarnings("default"),  # as outside of tests: a line each
]


@pytest.fixture
def run(tiny, tmp_path, monkeypatch):
    """`jaxdiff restore ARGS` with a prior that compiles in no time; returns typer's result."""
    monkeypatch.chdir(tmp_path)

    def call(*args, command="restore"):
        options = ["--model", tiny, "--steps", 2]
        options += ["--samples", 2, "--sampler", "dps"] if command == "restore" else []
        return CliRunner().invoke(app, [command, *map(str, [*options, *args])])

    return call


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photographs"
    for name, face in zip(("a.png", "b.png", "sub/c.png", "sub/d.png"), data.faces().values()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        data.write_image(folder / name, face)
    return folder


def contents(out: Path) -> dict[str, bytes]:
    """Every file but for what depends on time."""
    files = (p for p in out.rglob("*") if p.is_file() and p != out / "metrics.json")
    return {str(p.relative_to(out)): p.read_bytes() for p in files}


def report(out: Path) -> dict:
    found = json.loads((out / "metrics.json").read_text())
    return {k: v for k, v in found.items() if not k.startswith("seconds")}


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError])
def test_stopped_and_started_again(stop, run, photographs, tmp_path, monkeypatch):
    """What was done is there, is not done again, and the end is that of one that was not stopped."""
    assert run(photographs, "--degrade", "--out", "whole").exit_code == 0
    calls = []

    def sample(*args, **kwargs):
        calls.append(args[0].y)
        if len(calls) == 3:
            raise stop
        return real(*args, **kwargs)

    real = jd.sample
    monkeypatch.setattr(restoration, "sample", sample)
    stopped = run(photographs, "--degrade", "--out", "out")
    assert stopped.exit_code == {KeyboardInterrupt: 130, MemoryError: 2}[stop]
    if stop is KeyboardInterrupt:
        assert "2 of 4 images are in out/, the same command goes on" in stopped.stderr
    else:
        assert "--batch-size" in stopped.stderr and "--remat" in stopped.stderr
    assert set(report(tmp_path / "out")["images"]) == {"a", "b"}
    again = run(photographs, "--degrade", "--out", "out")
    assert again.exit_code == 0 and len(calls) == 5, again.stderr
    whole, resumed = contents(tmp_path / "whole"), contents(tmp_path / "out")
    assert whole == resumed
    first, second = report(tmp_path / "whole"), report(tmp_path / "out")
    assert first["images"] == second["images"] and list(first["images"]) == list(second["images"])
    once_more = run(photographs, "--degrade", "--out", "out")
    assert once_more.exit_code == 0 and len(calls) == 5


KILLED = """
import os, pathlib, signal, sys
from jaxdiff.cli import main, priors, restoring
from jaxdiff.util import files

restoring.cache_compiled_programs = lambda: None
real, left = pathlib.Path.rename, int(sys.argv.pop(1))

def deadly(path, target):
    global left
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return real(path, target)

pathlib.Path.rename = deadly
main()
"""


def test_killed_when_an_image_is_whole_but_not_in_its_place(run, photographs, tiny, tmp_path):
    options = ["--degrade", "--model", tiny, "--steps", 2, "--samples", 2, "--sampler", "dps"]
    command = [sys.executable, "-c", KILLED, 2, "restore", photographs, *options, "--out", "out"]
    environment = os.environ | {"XLA_FLAGS": xla_flags(devices=1)}
    process = subprocess.run(list(map(str, command)), env=environment, capture_output=True)
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert len(list((tmp_path / "out").glob(".writing-*"))) == 1
    assert {p.parent.name for p in (tmp_path / "out").glob("[!.]*/metrics.json")} == {"a", "b"}
    assert run(photographs, "--degrade", "--out", "out").exit_code == 0
    assert run(photographs, "--degrade", "--out", "whole").exit_code == 0
    out, whole = contents(tmp_path / "out"), contents(tmp_path / "whole")
    assert out.keys() == whole.keys()
    assert len(report(tmp_path / "out")["images"]) == 4


@pytest.mark.parametrize("what", ["seed", "weights", "images", "camera", "samples"])
def test_another_restoration_in_the_folder(what, run, photographs, tiny, tmp_path):
    """Identity is content: the same names with other content are refused, and replaced on request."""
    np.save("k.npy", data.gaussian_kernel(5, 1.0))
    jd.save(tmp_path / "prior", *jd.load(tiny))
    arguments = [photographs, "--degrade", "--kernel", "k.npy", "--model", "prior", "--save-draws"]
    assert run(*arguments).exit_code == 0
    before = contents(tmp_path / "restored")
    assert "a/draw-2.png" in before
    if what == "weights":
        (tmp_path / "prior/scheduler_config.json").write_text('{"beta_end": 0.03}')
    elif what == "images":
        data.write_image(photographs / "b.png", np.zeros((64, 64, 3)))
    elif what == "camera":
        np.save("k.npy", data.gaussian_kernel(5, 2.0))
    else:
        arguments += [f"--{what}", "1"]
    refused = run(*arguments)
    assert refused.exit_code == 2 and f"another {what}" in refused.stderr, refused.stderr
    assert "--overwrite" in refused.stderr and contents(tmp_path / "restored") == before
    (photographs / "b.png").unlink()
    assert run(*arguments, "--overwrite").exit_code == 0
    assert not (tmp_path / "restored/b").exists()
    assert (tmp_path / "restored/a/draw-2.png").exists() == (what != "samples")


def test_names(run, tmp_path):
    """Nothing outside OUT, a folder for each image, and all that is printed can be printed."""
    folder, face = tmp_path / "images", data.faces()["0"]
    made = 0
    for name in NASTY:
        try:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            data.write_image(folder / name, face)
            made += 1
        except OSError:  # a name that this file system lacks
            continue
    before = {p for p in tmp_path.rglob("*") if p.is_file()}
    result = run(folder, "--degrade", "--samples", 1, "--out", "deep/out [dim]")
    hidden = sum(name.split("/")[-1].startswith(".") for name in NASTY)
    assert result.exit_code == 0, result.stderr
    out = tmp_path / "deep/out [dim]"
    done = list(out.rglob("restored.png"))
    assert made - hidden <= len(done) <= made and len(report(out)["images"]) == len(done)
    after = {p for p in tmp_path.rglob("*") if p.is_file()}
    assert before <= after and all(out in p.parents for p in after - before)
    assert (out / "photo [final]/restored.png").exists() and "photo [final]" in result.stdout
    assert len({i["file"] for i in report(out)["images"].values()}) == len(done)


def test_a_single_image_of_any_name(run, tmp_path):
    for number, name in enumerate(["photo[final].png", "x[:red]y.png", "-rf.png", "caf\udce9.png"]):
        data.write_image(tmp_path / name, data.faces()["0"])
        result = run("--degrade", "--samples", 1, "--out", f"r{number}", "--", name)
        assert result.exit_code == 0, result.stderr
        assert (tmp_path / f"r{number}/restored.png").exists()
        missing = run("--degrade", "--", f"no {name}")
        assert missing.exit_code == 2 and "no such image" in missing.stderr
        if name.isprintable():
            assert f"no {name}: " in missing.stderr


def test_images_are_read_one_by_one(run, photographs, tmp_path, monkeypatch):
    """Memory does not grow with the folder: no image is read before the one before it is written."""
    seen = []
    real = images.picture

    def read(path, *args):
        seen.append((path.stem, sorted(p.parent.name for p in tmp_path.rglob("restored.png"))))
        return real(path, *args)

    monkeypatch.setattr(images, "picture", read)
    assert run(photographs, "--degrade").exit_code == 0
    of_its_size = ("a", [])  # the camera is, before all else
    one_by_one = [("a", []), ("b", ["a"]), ("c", ["a", "b"]), ("d", ["a", "b", "c"])]
    assert seen == [of_its_size, *one_by_one]


def test_an_image_does_not_depend_on_what_is_beside_it(run, photographs, tmp_path, monkeypatch):
    assert run(photographs, "--degrade", "--out", "one").exit_code == 0
    from jaxdiff.commands import restore

    monkeypatch.setattr(restore, "evaluation_batch", lambda: 6)  # three images at once
    assert run(photographs, "--degrade", "--out", "three").exit_code == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "three")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_an_error(value, run, photographs, tmp_path, monkeypatch):
    real, calls = jd.sample, []

    def sample(*args, **kwargs):
        samples, kept = real(*args, **kwargs)
        calls.append(1)
        return (samples.at[0, 0, 3, 4, 1].set(value) if len(calls) == 2 else samples), kept

    monkeypatch.setattr(restoration, "sample", sample)
    result = run(photographs, "--degrade")
    assert result.exit_code == 2 and "b.png: dps gave samples that are not finite" in result.stderr
    assert not (tmp_path / "restored/b").exists()
    assert set(report(tmp_path / "restored")["images"]) == {"a", "sub/c", "sub/d"}
    calls[:] = [1]
    single = run(photographs / "a.png", "--degrade", "--out", "single")
    assert single.exit_code == 2 and not (tmp_path / "single").exists()


@pytest.mark.parametrize("sigma", [4 / 255, 10 / 255, 0.1])
def test_noise_level_is_estimated(sigma, run, tmp_path):
    blur = jd.operators.Blur(data.gaussian_kernel(9, 2.0), (64, 64))
    y = np.asarray(blur(data.example()))
    y = y + sigma * np.random.default_rng(0).standard_normal(y.shape)
    assert estimate_sigma(y) == pytest.approx(sigma, rel=0.1)
    data.write_image(tmp_path / "y.png", y)
    result = run("y.png", "--kernel", "gaussian:9,2")
    assert result.exit_code == 0, result.stderr
    found = report(tmp_path / "restored")
    assert found["sigma"] == pytest.approx(sigma, rel=0.15) and found["settings"]["sigma"] is None
    assert f"{found['sigma']:.4f}" in result.stdout and "noise" in result.stdout


def test_noise_level_that_cannot_be_estimated(run, tmp_path):
    data.write_image(tmp_path / "y.png", data.example())
    for arguments, message in (
        (["y.png", "--operator", "mask:0.3,0"], "pixels are missing"),
        (["y.png", "--degrade", "--sigma", "auto"], "auto is for measurements"),
        (["y.png", "--kernel", "gaussian:9,2", "--sigma", "nan"], "--sigma"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2 and message in result.stderr, result.stderr
    loud = run("y.png", "--degrade", "--sigma", "0.7")
    assert loud.exit_code == 0 and "warning: --sigma 0.7 is more noise than image" in loud.stderr
    other = run("y.png", "--degrade", "--sigma", "10", "--out", "other")
    assert other.exit_code == 2 and "sigma: 10 is larger than any noise" in other.stderr


def test_draws_and_pictures_of_16_bits(run, tmp_path, monkeypatch):
    real, drawn = jd.sample, []

    def sample(*args, **kwargs):
        drawn.append(real(*args, **kwargs))
        return drawn[-1]

    monkeypatch.setattr(restoration, "sample", sample)
    assert run("--save-draws").exit_code == 0
    samples, out = np.asarray(drawn[0][0][0]), tmp_path / "restored"
    for number in (1, 2):
        picture = data.read_image(out / f"draw-{number}.png")
        np.testing.assert_allclose(picture, samples[number - 1], atol=0.5 / 255 + 1e-6)
    for name, expected in (
        ("restored", samples.mean(0)), ("deviation", samples.std(0, ddof=1)),
    ):  # fmt: skip
        values = decoded(out / f"{name}-16bit.png")
        np.testing.assert_allclose(values / 65535, np.clip(expected, 0, 1), atol=0.51 / 65535)


def test_bad_images_in_every_command(run, photographs, tiny, tmp_path):
    (photographs / "bad.png").write_bytes(b"no image")
    for command, arguments in (
        ("restore", ["--degrade"]),
        ("evaluate", ["--samplers", "dps"]),
    ):
        result = run(photographs, *arguments, "--out", command, command=command)
        assert result.exit_code == 2 and result.stderr.count("error:") == 1, result.stderr
        assert "bad.png" in result.stderr
    assert len((tmp_path / "evaluate/results.csv").read_text().splitlines()) == 1 + 4
    arguments = ["calibrate", tiny, photographs, "--levels", 2, "--out", "table"]
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 2 and "bad.png" in result.stderr
    assert "4 images of" in result.stdout and jd.SpectralCovariance.load(tmp_path / "table")


def test_output_for_programs(run, photographs):
    result = run(photographs, "--degrade", "--json")
    assert set(json.loads(result.stdout)["images"]) == {"a", "b", "sub/c", "sub/d"}
    assert run(photographs, "--degrade", "--quiet").output == ""
    failing = run("nothing.png", "--degrade", "--json", "--quiet")
    assert failing.stdout == "" and "nothing.png" in failing.stderr


@pytest.mark.parametrize(
    "error", [RecursionError("deep"), KeyError("k"), OverflowError("big"), EOFError(), StopIteration()]
)  # fmt: skip
def test_any_error_is_one_line(error, run, monkeypatch):
    def sample(*args, **kwargs):
        raise error

    monkeypatch.setattr(restoration, "sample", sample)
    result = run()
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1, result.stderr
    assert type(error).__name__ in result.stderr and "--debug" in result.stderr
    assert "Traceback" in run("--debug").stderr
