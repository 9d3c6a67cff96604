"""The command line where it cannot: one line, exit code 2, and nothing written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

import jaxdiff as jd
from jaxdiff.util.locks import LOCK


@pytest.mark.parametrize("seed", [2**32, 2**63, -1])
@pytest.mark.parametrize("command", [["restore"], ["sample"], ["train", "x", "--out", "y"]])
def test_a_seed_that_jax_lacks(command, seed, run):
    code, _, err = run(*command, "--seed", seed)
    assert code == 2 and "--seed" in err and "Traceback" not in err


@pytest.mark.parametrize("platforms", ["nothing", "cuda", "tpu"])
def test_no_device(platforms, tmp_path):
    command = [sys.executable, "-m", "jaxdiff.cli", "sample", "--n", "1", "--steps", "2"]
    environment = os.environ | {"JAX_PLATFORMS": platforms, "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"no device for JAX_PLATFORMS={platforms}" in last


def bad_files(folder: Path):
    np.save(folder / "nan.npy", np.array([[1.0, np.nan]]))
    np.save(folder / "big.npy", np.full((65, 65), 1 / 65**2))
    np.save(folder / "flat.npy", np.ones(3))
    Image.new("RGBA", (64, 64)).save(folder / "rgba.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (folder / "broken.mat").write_bytes(b"no mat")
    (folder / "empty").mkdir()
    (folder / "file").write_text("")
    checkpoint = folder / "checkpoint"
    jd.save(checkpoint, *jd.load("faces64"))
    config = json.loads((checkpoint / "config.json").read_text())
    for name, change in (("truncated", {}), ("unknown", {"act_fn": "tanh"}), ("bin", {})):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config | change))
        (folder / name / "scheduler_config.json").write_text("{}")
    weights = "diffusion_pytorch_model.safetensors"
    (folder / "truncated" / weights).write_bytes((checkpoint / weights).read_bytes()[:100_000])
    torch.save({"a": "text"}, folder / "bin" / "diffusion_pytorch_model.bin")


BAD = {
    "kernel-nan": (["--kernel", "nan.npy"], "NaN"),
    "kernel-too-large": (["--kernel", "big.npy"], "larger than the image"),
    "kernel-1d": (["--kernel", "flat.npy"], "flat.npy"),
    "kernel-absent": (["--kernel", "none.mat"], "none.mat"),
    "kernel-broken": (["--kernel", "broken.mat"], "broken.mat"),
    "kernel-recipe": (["--kernel", "gaussian:9"], "gaussian:9,1.5"),
    "sigma-negative": (["--sigma", "-0.1"], "--sigma"),
    "sigma-text": (["--sigma", "loud"], "--sigma"),
    "scale-negative": (["--scale", "-1"], "scale"),
    "steps": (["--steps", "1001"], "1 to 1000"),
    "steps-zero": (["--steps", "0"], "steps"),
    "sampler": (["--sampler", "magic"], "sampler"),
    "no-likelihood": (["--sampler", "tds", "--sigma", "0"], "TDS divides by it"),
    "no-mask": (["--sampler", "repaint"], "RePaint takes jd.operators.Mask only"),
    "no-scale": (["--sampler", "daps", "--scale", "2"], "DAPS has none to tune"),
    "image-absent": (["none.png"], "none.png"),
    "image-broken": (["broken.png", "--degrade"], "broken.png"),
    "no-kernel": (["rgba.png"], "--kernel"),
    "empty-folder": (["empty", "--degrade"], "no images"),
    "model-absent": (["--model", "nowhere"], "nowhere"),
    "model-empty": (["--model", "empty"], "no diffusers checkpoint"),
    "model-truncated": (["--model", "truncated"], "safetensors"),
    "model-unknown": (["--model", "unknown"], "act_fn"),
    "model-bin": (["--model", "bin"], "tensors"),
    "out-is-a-file": (["--out", "file"], "file"),
    "out-holds-other-things": (["--out", "checkpoint"], "checkpoint"),
}


@pytest.fixture(scope="module")
def bad_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    bad_files(folder)
    return folder


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_exit_code_2(case, run, bad_folder, monkeypatch):
    arguments, message = BAD[case]
    monkeypatch.chdir(bad_folder)
    before = sorted(bad_folder.rglob("*"))
    code, _, err = run("restore", *arguments)
    assert code == 2
    assert message in err and "Traceback" not in err
    if case != "steps-zero":  # typer's own box, for what it checks itself
        assert len(err.strip().splitlines()) == 1, err
    assert sorted(bad_folder.rglob("*")) == before, "something was written"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["none"], "no such folder"),
        (["empty"], "no images"),
        (["--steps", "20,many"], "--steps"),
        (["--steps", "1001"], "1 to 1000"),
        (["--samplers", "dps,magic"], "'magic'"),
        (["--out", "checkpoint"], "other files"),
        (["--model", "nowhere"], "nowhere"),
    ],
)
def test_bad_evaluation(arguments, message, run, bad_folder, monkeypatch):
    monkeypatch.chdir(bad_folder)
    before = sorted(bad_folder.rglob("*"))
    code, _, err = run("evaluate", *arguments)
    assert code == 2 and message in err and len(err.strip().splitlines()) == 1, err
    assert sorted(bad_folder.rglob("*")) == before, "something was written"


@pytest.mark.parametrize(
    "line", ["convert faces64 out", "convert faces64 out --force", "calibrate faces64 --out out"]
)
def test_one_writer_at_a_time(line, run, tmp_path):
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / LOCK):
        code, _, err = run(*line.split())
    assert code == 2 and "out: another jaxdiff is writing to it" in err
    assert [p.name for p in (tmp_path / "out").iterdir()] == [LOCK]
