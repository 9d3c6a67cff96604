"""Shared fixtures. The global JAX configuration is never changed, only scoped."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Workers beside each other: torch's threads spin while they wait, and would take each other's cores.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# What a script's shell starts in the background ignores Ctrl-C, and so would the programs that the tests send one.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import jax
import numpy as np
import pytest
from flax import nnx

# Tests of several devices run in the same process as all others: eight CPU devices for everyone.
DEVICES = "--xla_force_host_platform_device_count=8"
# Most programs are toys. Compiled in a third of the time: no LLVM optimisations, XLA's older loops.
HURRY = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_parallel_codegen_split_count=1"
)
if "XLA_FLAGS" not in os.environ:  # workers have what the first process found
    flags = f"{DEVICES} {HURRY}"
    only_cpus = "import jax; assert jax.default_backend() == 'cpu'"
    probe = subprocess.run(  # XLA ends a process for a flag that it does not know
        [sys.executable, "-c", only_cpus],
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
    )
    os.environ["XLA_FLAGS"] = DEVICES if probe.returncode else flags

SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared(path: str) -> Path:
    """A file of the team's shared data, or a skip where it is absent."""
    if not (SHARED / path).exists():
        pytest.skip(f"needs ../shared/{path}, which is not on this machine")
    return SHARED / path


@contextmanager
def child(command: list, **options) -> Iterator[subprocess.Popen]:
    """A process that does not outlive the test that started it, however that ends."""
    with subprocess.Popen(list(map(str, command)), **options) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def xla_flags(devices: int) -> str:
    """The tests' own, for a process of so many CPU devices."""
    return re.sub(f"{DEVICES[:-1]}\\d+", DEVICES[:-1] + str(devices), os.environ["XLA_FLAGS"])


@pytest.fixture(scope="module")
def optimised():
    """Programs are compiled as a user's are."""
    from jaxdiff.util import platform

    usual = {"xla_backend_optimization_level": "3", "xla_cpu_use_fusion_emitters": "True"}
    options = {n: v for n, v in usual.items() if platform.known(n, v)} | platform.compiler_options()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(platform, "compiler_options", lambda: options)
        yield


@pytest.fixture
def uncached(monkeypatch):
    """The command line in this process leaves the user's folder of compiled programs alone."""
    from jaxdiff.cli import priors, restoring

    for module in (priors, restoring):
        monkeypatch.setattr(module, "cache_compiled_programs", lambda: None)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys, uncached):
    """Run `jaxdiff ARGS` in an empty folder; returns (exit code, stdout, stderr)."""
    import sys

    from jaxdiff import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("warnings.showwarning", None, raising=False)

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["jaxdiff", *map(str, args)])
        with pytest.raises(SystemExit) as e:
            cli.main()
        out, err = capsys.readouterr()
        return e.value.code or 0, out, err

    return call


@pytest.fixture(scope="session")
def faces64():
    import jaxdiff as jd

    return jd.load("faces64")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A checkpoint for 64×64 images that compiles in no time: for what no trained prior is needed."""
    import jaxdiff as jd
    from jaxdiff.nn.unet import abstract_unet

    config = jd.UNet2DConfig(
        sample_size=64,
        block_out_channels=(4, 4),
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        mid_block_type=None,
        layers_per_block=1,
        norm_num_groups=2,
    )
    graph, shapes = nnx.split(abstract_unet(config))
    rng = np.random.default_rng(0)
    weights = jax.tree.map(lambda w: 0.1 * rng.standard_normal(w.shape).astype("f"), shapes)
    unet = nnx.merge(graph, weights)
    folder = tmp_path_factory.mktemp("tiny")
    jd.save(folder, unet, jd.Schedule.from_config())
    table = jd.SpectralCovariance.load("faces64")  # of the same schedule
    dataclasses.replace(table, weights=None).save(folder)
    return folder


@pytest.fixture(scope="session")
def photograph() -> np.ndarray:
    """The bundled portrait at the prior's size, [64, 64, 3] float32 in [0, 1]."""
    from jaxdiff import data

    return data.example()


@pytest.fixture(scope="session")
def kernel() -> np.ndarray:
    """A camera-shake kernel of our own making, 17×17, sum 1."""
    from jaxdiff import data

    return data.motion_kernel(17, seed=0)


@pytest.fixture(autouse=True, scope="module")
def fresh_caches():
    """Every compiled program is mapped into memory, and Linux gives a process 65,530 maps."""
    yield
    jax.clear_caches()


def pytest_collection_modifyitems(items):
    # ACCELERATOR_DRY: the tests themselves are tried, small and on a CPU (benchmarks/accelerator.sh).
    if jax.default_backend() != "cpu" or "ACCELERATOR_DRY" in os.environ:
        return
    skip = pytest.mark.skip(reason="needs an accelerator: JAX sees only CPU devices here")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)
