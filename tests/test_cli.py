"""The command line, as its user meets it: in an empty folder."""

import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import click
import jax
import numpy as np
import pytest
import typer
from diffusers import DDPMScheduler, UNet2DModel
from PIL import Image

import jaxdiff as jd
from jaxdiff import cli, data, metrics
from tests.conftest import shared
from tests.parity.configs import CONFIGS
from tests.parity.reference import torch_unet


@pytest.fixture
def fast(tiny):
    """Options of a restoration that compiles and runs in a second."""
    return ["--steps", "3", "--samples", "2", "--model", tiny]


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    data.write_image(path, data.example())
    return path


COMMANDS = ("restore", "evaluate", "sample", "calibrate", "train", "convert")


def test_help(run, monkeypatch):
    """Every option with a default shows it, also those that depend on other options."""
    monkeypatch.setenv("COLUMNS", "200")
    for command in ([], *([c] for c in COMMANDS)):
        for flag in ("--help", "-h"):
            code, out, _ = run(*command, flag)
            assert code == 0 and "Usage" in out
    shown = {c: " ".join(run(c, "--help")[1].split()) for c in COMMANDS}
    for command, defaults in {
        "restore": (
            "10/255 with --degrade",
            "motion:9,0",
            "10 for spectral",
            "100 for dps-adaptive",
            "photos64, and faces64",
        ),
        "evaluate": ("20,50,100", "spectral where", "evaluation"),
        "sample": ("16", "ddpm", "samples.png", "faces64"),
        "calibrate": ("256, or 64 samples", "25", "the model's"),
        "train": ("50000", "0.0003", "small, or that of --init", "random weights"),
        "convert": ("float32",),
    }.items():
        for default in defaults:
            assert re.search(rf"\[default: [^]]*{re.escape(default)}", shown[command]), default


def test_every_option_shows_its_default():
    """Of every command; a flag is off, an argument or option without a default is required."""
    for name, command in typer.main.get_command(cli.app).commands.items():
        context = click.Context(command, info_name=name)
        for option in command.params:
            if isinstance(option, click.Option) and not option.is_flag and not option.required:
                _, text = option.get_help_record(context)
                assert "[default: " in text, f"{name} {option.name}"


NAMES_OF_FILES = (
    "photo[final].png", "x[/y].png", "[bold]b[/bold].png", "[red]", "a b.png", " a .png", "it's.png",
    'say "x".png', "-rf.png", "--help", "a,b.png", "a@grey.png", "mask:0.3,0.png", "ünïcödé.png",
    "写真.png", "😀.png", ":smile:.png", "$HOME.png", "100%.png", "a\\b.png", "{x}.png", "#1;2&3.png",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES_OF_FILES)
def test_a_name_is_text(name, run, tmp_path):
    """A file that is not there is named as it is, whatever a terminal would make of its name."""
    path = Path("folder") / name
    code, _, err = run("restore", "--degrade", "--", path)
    assert code == 2 and err == f"error: {path}: no such image or folder\n"
    code, _, err = run("restore", "--kernel", f"folder/{name}", "--sigma", "0.1", "--", path)
    assert code == 2 and err.count("\n") == 1 and "Traceback" not in err


def test_version(run):
    code, out, _ = run("--version")
    assert code == 0 and out == f"jaxdiff {jd.__version__}\n"


def test_demo_beats_the_degraded_image_and_the_wiener_filter(run, tmp_path):
    """The command of the README, as it is."""
    code, out, err = run("restore")
    assert code == 0, err
    report = json.loads((tmp_path / "restored/metrics.json").read_text())
    print(report)
    assert report["psnr_restored"] > report["psnr_wiener"] + 2
    assert report["psnr_wiener"] > report["psnr_degraded"] + 2
    for key in ("psnr_degraded", "psnr_wiener", "psnr_restored"):
        assert f"{report[key]:.2f}" in out
    with Image.open(tmp_path / "restored/comparison.png") as picture:
        assert picture.width > 600
    truth, restored = data.example(), data.read_image(tmp_path / "restored/restored.png")
    assert metrics.psnr(restored, truth) == pytest.approx(report["psnr_restored"], abs=1e-9)


def test_measured_image(run, photo, tmp_path, fast):
    """Without --degrade the image is the measurement, and there is no truth to score against."""
    code, out, err = run("restore", photo, "--kernel", "gaussian:5,1", "--out", "a", *fast)
    assert code == 0, err
    report = json.loads((tmp_path / "a/metrics.json").read_text())
    assert "psnr_restored" not in report and "residual_rms" in report
    said = f"{report['misfit']:.1f} times as far from what the prior expects"
    assert report["misfit"] > 10 and said in " ".join(out.split())
    degraded = data.read_image(tmp_path / "a/degraded.png")
    np.testing.assert_array_equal(degraded, data.read_image(photo))


def test_another_sampler(run, photo, fast):
    arguments = ["--degrade", "--sampler", "dps-adaptive", "--scale", "50"]
    code, _, err = run("restore", photo, *arguments, *fast)
    assert code == 0, err
    settings = json.loads(Path("restored/metrics.json").read_text(encoding="utf-8"))["settings"]
    assert settings["sampler"] == "dps-adaptive" and settings["scale"] == 50


@pytest.mark.parametrize("operator, shape", [("crop:4@blur:motion:9,0", (56, 56)), ("grey", None)])
def test_other_cameras(run, photo, tmp_path, operator, shape, fast):
    """A measurement of another shape than the image: degraded, restored, restored from the file."""
    code, out, err = run("restore", photo, "--degrade", "--operator", operator, *fast)
    assert code == 0, err
    report = json.loads((tmp_path / "restored/metrics.json").read_text())
    assert {"error_over_spread", "coverage", "coverage_nominal"} <= set(report)
    assert "psnr_degraded" not in report and "–" in out
    degraded = tmp_path / "restored/degraded.png"
    assert data.read_image(degraded, None).shape[:2] == (shape or (64, 64))
    code, _, err = run("restore", degraded, "--operator", operator, "--out", "again", *fast)
    assert code == 0, err
    assert data.read_image(tmp_path / "again/restored.png").shape == (64, 64, 3)


def test_calibrate(run, tmp_path, tiny):
    """Beside a checkpoint that diffusers then still loads; restore then uses it by itself."""
    assert run("convert", tiny, "model")[0] == 0
    (tmp_path / "model/spectral_covariance.safetensors").unlink()
    for name in ("spectral", "spectral-jacobian"):
        code, _, err = run("restore", "--model", "model", "--sampler", name)
        assert code == 2 and "jaxdiff calibrate" in err
    folder = Path(jd.__file__).parent / "assets/faces"
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        code, out, err = run("calibrate", "model", folder, "--n", 2, "--levels", 3)
    assert code == 0 and "3 noise levels" in out and "measured on 2 images" in err, err
    assert (tmp_path / "model/spectral_covariance.png").exists()
    assert jd.SpectralCovariance.load(tmp_path / "model").table.shape == (3, 47, 3, 3)
    assert UNet2DModel.from_pretrained(tmp_path / "model").config.sample_size == 64
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        squares = "--size", 32, "--crop"
        code, _, err = run("calibrate", "model", folder, "--n", 2, "--levels", 3, *squares)
    assert code == 0, err
    faces = np.stack(list(data.faces().values()))[:2, 16:48, 16:48]
    unet = jd.Denoiser(*jd.load(tmp_path / "model"))
    with pytest.warns(UserWarning, match="on 2 images"):
        same = jd.SpectralCovariance.estimate(unet, faces, key=jax.random.key(0), levels=3)
    found = jd.SpectralCovariance.load(tmp_path / "model").table
    assert found.shape == (3, 24, 3, 3)
    np.testing.assert_allclose(found, same.table, rtol=1e-4)
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        (["faces64"], "no folder here"),
        (["model", "--crop"], "are of images"),
        (["model", "nothing"], "no such folder or .npz"),
        (["model", "empty"], "holds no images"),
        (["model", "model/config.json"], "expected an .npz"),
    ):
        code, _, err = run("calibrate", *arguments)
        assert code == 2 and message in err, err


def test_memory_and_precision(run, tmp_path, tiny, fast):
    """Neither changes what a CPU computes."""
    pixels = []
    for options in ([], ["--remat", "--precision", "highest"]):
        code, _, err = run("restore", "--sampler", "dps", "--overwrite", *fast, *options)
        assert code == 0, err
        with Image.open(tmp_path / "restored" / "restored.png") as picture:
            pixels.append(np.asarray(picture).astype(int))
    settings = json.loads((tmp_path / "restored" / "metrics.json").read_text())["settings"]
    assert settings["remat"] is True and settings["precision"] == "highest"
    assert np.abs(pixels[0] - pixels[1]).max() <= 1
    code, _, err = run("sample", "--n", 1, "--steps", 2, "--model", tiny, "--precision", "high")
    assert code == 0, err
    arguments = ["--samplers", "pigdm-paper", "--steps", "2", "--model", tiny]
    code, _, err = run("evaluate", *arguments, "--precision", "default", "--remat")
    assert code == 0, err


def test_folder_with_a_bad_image(run, tmp_path, fast):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a", "c"):
        data.write_image(folder / f"{name}.png", data.example())
    (folder / "b.png").write_bytes(b"no picture")
    Image.new("I;16", (64, 64)).save(folder / "d.tif", tiffinfo={262: 0})
    (folder / "notes.txt").write_text("not an image, and not meant as one")
    code, out, err = run("restore", folder, "--degrade", "--out", "r", *fast)
    assert code == 2
    assert len(err.strip().splitlines()) == 2 and "Traceback" not in err
    for part in ("b.png", "d.tif: "):
        assert part in err
    written = {p.name for p in (tmp_path / "r").iterdir()}
    assert written == {"a", "c", "metrics.json", "settings.json"}
    report = json.loads((tmp_path / "r/metrics.json").read_text())
    assert len(report["failed"]) == 2 and set(report["images"]) == {"a", "c"}
    assert "a" in out and "c" in out


def test_fit(run, tmp_path, fast):
    Image.fromarray(data.to_uint8(data.example(100))).save("big.png")
    for how in ("resize", "crop"):
        code, _, err = run("restore", "big.png", "--degrade", "--fit", how, "--out", how, *fast)
        assert code == 0, err
    code, _, err = run("restore", "big.png", "--degrade", *fast)
    assert code == 0, err
    for folder, size in (("resize", 64), ("crop", 64), ("restored", 100)):
        with Image.open(tmp_path / folder / "restored.png") as picture:
            assert picture.size == (size, size)


def test_a_transparent_picture(run, tmp_path, fast):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 4), np.uint8)
    Image.fromarray(pixels).save("glass.png")
    code, _, err = run("restore", "glass.png", "--degrade", *fast)
    assert code == 0, err
    with Image.open(tmp_path / "restored/restored.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture)[..., 3], pixels[..., 3])


def test_sample(run, tmp_path, tiny):
    arguments = ["--n", 5, "--steps", 2, "--model", tiny, "--out", "faces.png"]
    code, out, err = run("sample", *arguments)
    assert code == 0, err
    with Image.open(tmp_path / "faces.png") as picture:
        assert picture.size == (3 * 66 - 2, 2 * 66 - 2)
    assert "faces.png" in out


def test_convert(run, tmp_path):
    """The table goes with the weights, and nothing that is there is replaced unless it is meant."""
    code, _, err = run("convert", "faces64", "copy")
    assert code == 0, err
    assert jd.load(tmp_path / "copy")[0].config.sample_size == 64
    table = jd.SpectralCovariance.load(tmp_path / "copy").table
    np.testing.assert_array_equal(table, jd.SpectralCovariance.load("faces64").table)
    code, _, err = run("convert", "faces64", "copy")
    assert code == 2 and "not empty" in err
    (tmp_path / "copy/notes.txt").touch()
    code, _, err = run("convert", "faces64", "copy", "--force", "--dtype", "bfloat16")
    assert code == 0 and (tmp_path / "copy/notes.txt").exists(), err


def test_convert_verify(tmp_path):
    """`python -m convert`, with the report on both precisions."""
    repository, source = Path(__file__).resolve().parents[1], tmp_path / "in"
    torch_unet(CONFIGS["celebahq-like"]).save_pretrained(source)
    DDPMScheduler().save_pretrained(source)
    done = subprocess.run(
        [sys.executable, "-m", "convert", source, tmp_path / "out", "--verify"],
        cwd=repository, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for part in (
        "float32",
        "float64",
        "down_blocks.1",
        "mid_block",
        "up_blocks.0",
        "output",
        "agrees",
    ):
        assert part in done.stdout
    last = [line for line in done.stdout.splitlines() if "output " in line and "│" in line]
    values = [float(v) for v in re.findall(r"\d\.\d+e[-+]\d+", last[-1])]
    assert len(last) == 2 and values[-1] <= 1e-10


def test_kernels_of_both_matlab_versions_on_the_command_line(run, photo, fast):
    for name in ("kernels_12.mat", "Levin09.mat"):
        spec = shared("data/kernels") / name
        code, _, err = run(
            "restore", photo, "--degrade", "--kernel", spec, "--out", name[:3], *fast
        )
        assert code == 0, err
