"""Cameras and noises by the words of the command line, from a clean picture to its restoration."""

import json
import sys

import jax
import numpy as np
import pytest

import jaxdiff as jd
from jaxdiff import cli, data
from jaxdiff.commands.cameras import names, of_measurement, operator
from jaxdiff.commands.recipes import NO_PICTURES, NOISES, OPERATORS, made, usage

SHAPES = {  # of what they measure of 64×64 colours
    "blur:gaussian:5,1": (64, 64, 3),
    "blur-reflect:motion:9,0": (64, 64, 3),
    "blur-zero:gaussian:5,1": (64, 64, 3),
    "unknown": (64, 64, 3),
    "unknown:9": (64, 64, 3),
    "varying": (64, 64, 3),
    "varying:1.5": (64, 64, 3),
    "mask:0.3": (64, 64, 3),
    "box:16,16,32,32": (64, 64, 3),
    "outpaint": (64, 64, 3),
    "outpaint:8": (64, 64, 3),
    "downsample:4,matlab": (16, 16, 3),
    "crop:4": (56, 56, 3),
    "grey": (64, 64, 1),
    "demosaic": (64, 64, 1),
    "demosaic:BGGR": (64, 64, 1),
    "fourier": (64, 64, 6),
    "fourier:8,3": (64, 64, 6),
    "radon:30": (30, 91, 3),
    "cs": (1024, 1, 3),
    "cs:8,1": (512, 1, 3),
    "phase": (96, 96, 3),
    "phase:4": (128, 128, 3),
    "hdr": (64, 64, 3),
    "saturate:1.5": (64, 64, 3),
    "gamma:2.2": (64, 64, 3),
    "jpeg:10": (64, 64, 3),
    "jpeg@saturate@blur-zero:gaussian:5,1": (64, 64, 3),
    "grey@crop:3@varying": (58, 58, 1),
}


@pytest.mark.parametrize("recipe", SHAPES)
def test_operators(recipe):
    """By name, with the defaults; what a measurement that is a picture was taken of is known, too."""
    camera = operator(recipe, (64, 64))
    image = jax.ShapeDtypeStruct((64, 64, 3), np.float32)
    assert jax.eval_shape(camera, image).shape == SHAPES[recipe]
    if not NO_PICTURES & set(names(recipe)):
        taken = of_measurement(recipe, SHAPES[recipe], "circular")
        assert taken.canvas[-1] in (1, 3) and taken.canvas[:2] == (64, 64)


def test_every_recipe_is_tried_and_told():
    assert {recipe.partition(":")[0].partition("@")[0] for recipe in SHAPES} >= set(OPERATORS)
    told = usage(OPERATORS)
    for text in ("phase:OVERSAMPLE=2", "jpeg:QUALITY=30", "fourier:FACTOR=4,SEED=0", "blur:KERNEL"):
        assert text in told
    assert "poisson:PEAK=100" in usage(NOISES) and "quantised:LEVELS=16,SIGMA=0.02" in usage(NOISES)


def test_a_lens_is_sharp_in_the_middle():
    x = np.zeros((33, 33, 1), np.float32)
    x[16, 16] = x[2, 2] = 1
    seen = np.asarray(operator("varying:2", (33, 33))(x))[..., 0]
    assert seen[16, 16] > 0.9 and seen[2, 2] < 0.2
    assert np.asarray(operator("varying:2", (33, 33))(0 * x + 1)).mean() == pytest.approx(
        1, abs=1e-3
    )


@pytest.mark.parametrize(
    "recipe", ["poisson:50", "poisson-gaussian:50,5/255", "laplace:0.1", "quantised"]
)
def test_noises(recipe):
    noise = made("--noise", NOISES, recipe)
    assert isinstance(noise, jd.noise.Noise)
    assert np.isfinite(noise.draw(jax.random.key(0), np.full((4, 4, 1), 0.5, "f"))).all()


@pytest.mark.parametrize(
    "recipe, message",
    [
        ("phase:3", "oversample: expected an even integer"),
        ("jpeg:0", "quality: expected 1"),
        ("jpeg:x", "expected jpeg:QUALITY=30"),
        ("box:0,0,64,64", "hides every pixel"),
        ("box:1,2,3", "expected box:"),
        ("outpaint:32", "not within"),
        ("radon:0", "angles: expected"),
        ("cs:0", "factor: expected"),
        ("fourier:1", "factor: expected"),
        ("demosaic:RGB", "pattern: expected"),
        ("gamma:-1", "exponent: expected"),
        ("hdr:1/0", "expected hdr:RANGE=2"),
        ("grey:3", "expected grey"),
        ("blur:", "expected blur:KERNEL"),
    ],
)
def test_bad_operators(recipe, message):
    with pytest.raises(ValueError, match=f"operator '{recipe}': .*{message}"):
        operator(recipe, (64, 64))


@pytest.fixture
def run(tiny, tmp_path, monkeypatch, capsys, uncached):
    """`jaxdiff restore ARGS` of the small prior: the exit code, metrics.json and what is told."""
    monkeypatch.chdir(tmp_path)
    data.write_image(tmp_path / "photo.png", data.example())

    def call(*args):
        fast = ["--steps", "2", "--samples", "2", "--model", str(tiny), "--overwrite"]
        monkeypatch.setattr(sys, "argv", ["jaxdiff", "restore", "photo.png", *args, *fast])
        with pytest.raises(SystemExit) as e:
            cli.main()
        report = tmp_path / "restored" / "metrics.json"
        return (
            e.value.code or 0,
            json.loads(report.read_text()) if report.exists() else {},
            capsys.readouterr().err,
        )

    return call


RESTORED = [
    ("phase:2", None, "daps"),
    ("cs", None, "spectral"),
    ("fourier:4", "poisson-gaussian:100,0.1", "spectral"),
    *(
        pytest.param(recipe, noise, sampler, marks=pytest.mark.slow)
        for recipe, noise, sampler in (
            ("hdr", None, "spectral"),
            ("jpeg:30", "laplace:0.05", "spectral"),
            ("saturate", "quantised:8,0.05", "spectral"),
            ("gamma", None, "spectral"),
            ("radon:12", None, "spectral"),
            ("demosaic", None, "spectral"),
            ("box:16,16,32,32", "poisson:100", "spectral"),
            ("outpaint", "gaussian:0.1", "spectral"),
            ("varying", None, "spectral"),
            ("blur-reflect:motion:9,0", None, "spectral"),
            ("blur-zero:motion:9,0", None, "spectral"),
        )
    ),
]


@pytest.mark.parametrize("recipe, noise, sampler", RESTORED)
def test_degrades_and_restores(run, recipe, noise, sampler, tmp_path):
    code, report, err = run(
        "--degrade", "--operator", recipe, *(["--noise", noise] if noise else [])
    )
    assert code == 0, err
    result = report["images"]["photo"] if "photo" in report["images"] else report
    assert report["settings"]["sampler"] == sampler and np.isfinite(result["psnr_restored"])
    linear = isinstance(operator(recipe, (64, 64)), jd.operators.Linear)
    assert ("psnr_wiener" in result) == linear
    assert 0 < report["images"][next(iter(report["images"]))]["sigma"] < 0.3
    for name in ("degraded.png", "restored.png", "comparison.png"):
        assert (tmp_path / "restored" / name).exists()


def test_an_unknown_kernel_is_found_and_written(run, tmp_path):
    code, report, err = run("--kernel", "unknown:7", "--sigma", "0.05", "--steps", "3")
    assert code == 0, err
    assert report["settings"]["sampler"] == "blind"
    kernel, deviation = (
        np.load(tmp_path / "restored" / f"{name}.npy") for name in ("kernel", "kernel-deviation")
    )
    assert kernel.shape == deviation.shape == (7, 7) and kernel.sum() == pytest.approx(1, abs=1e-5)
    assert data.read_image(tmp_path / "restored/kernel.png", channels=None).shape[:2] == (7, 7)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--degrade", "--noise", "poisson:0"], "--noise 'poisson:0': peak: expected a finite number > 0"),
        (["--degrade", "--noise", "rain"], "--noise 'rain': expected one of gaussian, "),
        (["--degrade", "--noise", "poisson", "--sigma", "0.1"], "--noise: name either it or --sigma"),
        (["--degrade", "--noise", "poisson", "--sampler", "pigdm"], "Gaussian noise, got Poisson: DPS"),
        (["--degrade", "--operator", "hdr", "--sampler", "ddrm"], "HDR is not linear"),
        (["--operator", "radon:30"], "operator radon: what it measures is no picture"),
        (["--degrade", "--kernel", "unknown:5"], "with --degrade name the kernel"),
        (["--kernel", "unknown:4"], "operator 'unknown:4': size: expected an odd number"),
        (["--kernel", "unknown:5", "--sampler", "dps"], "DPS needs the blur's kernel"),
        (["--operator", "box:1,1,2,2"], "--sigma: cannot be estimated where pixels are missing"),
    ],
)  # fmt: skip
def test_bad_commands(run, arguments, message):
    code, report, err = run(*arguments)
    assert code == 2 and message in " ".join(err.split()) and err.count("\n") < 8 and not report
