"""Several devices and several processes: each image once, and as one process restores it."""

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from typer.testing import CliRunner

import jaxdiff as jd
from jaxdiff import data, sampling
from jaxdiff.cli import app
from jaxdiff.nn import native
from jaxdiff.util import hosts
from tests.conftest import child, xla_flags
from tests.test_train import CONFIG


def on_two_hosts(*arguments, cwd):
    """The command line in two processes on loopback, with two CPU devices each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = os.environ | {
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_NUM_PROCESSES": "2",
        "XLA_FLAGS": xla_flags(devices=2),
        "XDG_CACHE_HOME": str(cwd / "cache"),
    }
    command = [sys.executable, "-m", "jaxdiff.cli", *map(str, arguments), "--hosts"]
    options = {"cwd": cwd, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                child(command, env=environment | {"JAX_PROCESS_ID": str(i)}, **options)
            )
            for i in range(2)
        ]
        outputs = [process.communicate(timeout=300)[0] for process in processes]
    return [process.returncode for process in processes], outputs


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for name, image in list(data.faces().items())[:5]:
        data.write_image(folder / f"{name}.png", image)
    (folder / "damaged.png").write_bytes(b"no image")
    return folder


def files(folder):
    return {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}


def test_a_folder_restored_by_two_hosts(photographs, tiny, tmp_path, uncached):
    """Five images and a damaged one on two hosts with two devices each, against one with one."""
    arguments = ["restore", photographs, "--degrade", "--model", tiny, "--steps", 2]
    arguments += ["--samples", 2, "--sampler", "dps"]
    codes, outputs = on_two_hosts(*arguments, "--devices", 2, "--out", "two", cwd=tmp_path)
    assert codes == [2, 2], outputs  # for the damaged image
    one = CliRunner().invoke(app, [*map(str, arguments), "--out", str(tmp_path / "one")])
    assert one.exit_code == 2
    assert files(tmp_path / "one").keys() == files(tmp_path / "two").keys()
    first, second = (
        json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two")
    )
    assert first["images"].keys() == second["images"].keys() and len(first["images"]) == 5
    assert first["failed"] == second["failed"] and len(first["failed"]) == 1
    for name, image in first["images"].items():
        expected, got = image["psnr_samples"], second["images"][name]["psnr_samples"]
        np.testing.assert_allclose(got, expected, atol=1e-4)
        assert len(set(got)) == 2
    assert sum("5 × 2 samples" in " ".join(output.split()) for output in outputs) == 1


def test_a_host_that_fails_tells_the_others(photographs, tiny, tmp_path, uncached):
    """Only the first finds that the folder is of another restoration; the other does not wait."""
    arguments = ["restore", photographs, "--degrade", "--model", tiny, "--steps", 1]
    arguments += ["--samples", 1, "--sampler", "dps", "--out", tmp_path / "out"]
    CliRunner().invoke(app, list(map(str, arguments)))
    started = time.monotonic()
    codes, outputs = on_two_hosts(*arguments, "--seed", 1, cwd=tmp_path)
    assert codes == [2, 2] and time.monotonic() - started < 200, outputs
    assert "another seed" in outputs[0] and "stopped with host 0" in outputs[1], outputs


@pytest.mark.slow
def test_an_evaluation_on_two_hosts(photographs, tiny, tmp_path, uncached):
    (photographs / "damaged.png").unlink(missing_ok=True)
    arguments = ["evaluate", photographs, "--model", tiny, "--samplers", "dps", "--steps", "2"]
    codes, outputs = on_two_hosts(*arguments, "--out", "two", cwd=tmp_path)
    assert codes == [0, 0], outputs
    CliRunner().invoke(app, [*map(str, arguments), "--out", str(tmp_path / "one")])
    assert files(tmp_path / "one").keys() == files(tmp_path / "two").keys()
    one, two = ((tmp_path / name / "results.csv").read_text() for name in ("one", "two"))
    assert len(one.splitlines()) == 6
    for a, b in zip(one.splitlines()[1:], two.splitlines()[1:], strict=True):
        assert a.split(",")[:3] == b.split(",")[:3]
        np.testing.assert_allclose(*(list(map(float, r.split(",")[3:])) for r in (a, b)), atol=1e-4)


def test_a_training_on_two_hosts(photographs, tmp_path, uncached):
    """Each batch of four shared by four devices on two hosts, against one device: the same weights."""
    (photographs / "damaged.png").unlink(missing_ok=True)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    arguments = ["train", photographs, "--size", 16, "--config", tmp_path / "config.json"]
    arguments += ["--steps", 4, "--batch-size", 4, "--save-every", 2, "--half-size", 0]
    codes, outputs = on_two_hosts(*arguments, "--out", "two", cwd=tmp_path)
    assert codes == [0, 0], outputs
    one = [*map(str, arguments), "--devices", "1", "--out", str(tmp_path / "one")]
    assert CliRunner().invoke(app, one).exit_code == 0
    two, one = (jd.load(tmp_path / name / "model")[0] for name in ("two", "one"))
    for a, b in zip(*(jax.tree.leaves(nnx.state(unet)) for unet in (two, one)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    codes, outputs = on_two_hosts(*arguments, "--out", "two", cwd=tmp_path)
    assert codes == [0, 0], outputs  # finished: nothing is left to do


def test_more_devices_than_there_are():
    count = len(jax.local_devices()) + 1
    with pytest.raises(ValueError, match="--devices: JAX sees"):
        hosts.device_sharding(count)


def test_alone(monkeypatch):
    for name in ("JAX_COORDINATOR_ADDRESS", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="--hosts: start with srun or mpirun, or set JAX_"):
        hosts.join()
    assert hosts.share([1, 2, 3]) == [1, 2, 3]


def test_each_device_has_its_share_and_nothing_to_say(tiny, monkeypatch):
    """Read from the compiled loop: no collective, and a device's operations and bytes fall as 1/N."""
    unet, schedule = jd.load(tiny)
    blur = jd.operators.Blur(np.ones((3, 3)) / 9, (64, 64))
    sampler = jd.DPS(jd.Denoiser(unet, schedule), blur, np.zeros((64, 64, 3)))
    # XLA counts a loop's operations once, whatever its length, and none of a foreign call.
    monkeypatch.setattr(sampling, "map_samples", lambda step, *_: jax.vmap(step))
    monkeypatch.setattr(native, "available", lambda: False)
    whole = jax.jit(sampling._run_trajectory.__wrapped__, static_argnums=(4, 5, 6, 7))

    def costs(devices):
        samples = sampling._Samples(jax.random.split(jax.random.key(0), 8))
        static = ((64, 64, 3), jnp.dtype("float32"), None, hosts.device_sharding(devices))
        steps = schedule.steps(2).astype("float32")
        lowered = whole.lower(sampler, steps, 1.0, samples, *static)
        program = lowered.compile()
        for collective in ("all-reduce", "all-gather", "all-to-all", "collective-permute"):
            assert collective not in program.as_text()
        found = program.cost_analysis()
        return np.array([found["flops"], found["bytes accessed"]])

    one = costs(1)
    for devices in (2, 4, 8):
        np.testing.assert_allclose(costs(devices) * devices / one, 1, rtol=0.03)
