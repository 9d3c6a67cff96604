"""Who is asked for what on a GPU, in a process each, and in which order."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.contestants import Workload

DRY = "ACCELERATOR_DRY" in os.environ  # everything on a CPU, and tiny
ROOT = Path(__file__).parents[2]
TINY = {
    "sample_size": 16,
    "block_out_channels": (8,),
    "down_block_types": ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",),
    "mid_block_type": None,
    "layers_per_block": 1,
    "norm_num_groups": 4,
}
LARGE, SMALL = ("tiny", "tiny") if DRY else ("celebahq", "faces64")
NETWORKS = tuple(dict.fromkeys((LARGE, SMALL)))
DTYPES = ("float32",) if DRY else ("float32", "bfloat16")
SIZES = {"tiny": 16, "celebahq": 256, "faces64": 64}
BATCHES = {"tiny": (1, 2, 3), "celebahq": (1, 8, 32), "faces64": (1, 32, 256)}
STEPS = {
    "tiny": 2,
    "celebahq": 4,
    "faces64": 20,
}  # of a run, over which what a call costs is spread
# What `Choices` of jaxdiff.util.platform might be on a GPU, and the dtype that it is for.
VARIANTS = {
    "one by one": ({"vmap": False}, "float32"),
    "unrolled": ({"unroll": 2}, "float32"),
    "whole convolutions": ({"phases": False}, "float32"),
    "whole convolutions in bfloat16": ({"phases": False}, "bfloat16"),
    "XLA's attention": ({"attention": "xla"}, "bfloat16"),
    "cuDNN's attention": ({"attention": "cudnn"}, "bfloat16"),
    "NHWC forced": ({"options": {"xla_gpu_force_conv_nhwc": "True"}}, "float32"),
    "loops in CUDA graphs": (
        {"options": {"xla_gpu_enable_command_buffer": "FUSION,CUBLAS,CUDNN,CUSTOM_CALL,WHILE"}},
        "float32",
    ),
}


@dataclasses.dataclass
class Session:
    """A contestant's process and what it is asked, in order; `choices` are jaxdiff's."""

    name: str
    rows: list[Workload]
    choices: dict = dataclasses.field(default_factory=dict)
    processes: list[subprocess.Popen] = dataclasses.field(default_factory=list)
    stopped: bool = False

    def start(self, folder: Path, *flags: str, rows=None, **environment: str) -> subprocess.Popen:
        """`benchmarks.accelerator.work`, which says "ready" and waits for its seconds."""
        if self.stopped:
            raise TimeoutError(f"{self.name}: not ready in time")
        asked = json.dumps([dataclasses.asdict(r) for r in rows or self.rows])
        usual = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "OMP_NUM_THREADS": "4"}
        usual["JAXDIFF_CHOICES"] = json.dumps(self.choices)
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.accelerator.work", self.name, folder, asked, *flags],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | usual | environment,
        )
        self.processes.append(process)
        return process

    def prepared(self, folder: Path) -> subprocess.Popen:
        """Its process once that is ready; jaxdiff's programs are compiled by others before."""
        if self.name.startswith("jaxdiff"):
            groups: dict[tuple, list[Workload]] = {}
            for r in self.rows:
                groups.setdefault((r.checkpoint, r.dtype), []).append(r)
            # In little memory: what does not fit is compiled all the same.
            little = {"XLA_CLIENT_MEM_FRACTION": "0.1"}
            compiling = [
                self.start(folder, "--compiling", rows=g, **little) for g in groups.values()
            ]
            for process in compiling:
                process.communicate("0\n")
        process = self.start(folder)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    def ask(self, process: subprocess.Popen, seconds: float) -> Iterator[dict]:
        """What it answers within the seconds, a dictionary a row, as it comes."""
        assert process.stdin is not None and process.stdout is not None
        with process:
            process.stdin.write(f"{seconds}\n")
            process.stdin.close()
            for line in process.stdout:
                answer = json.loads(line)
                row = self.rows[answer.pop("row")]
                about = {"contestant": self.name, "workload": str(row)}
                yield about | dataclasses.asdict(row) | answer
        if process.returncode:
            raise OSError(f"exit code {process.returncode}")

    def stop(self) -> None:
        self.stopped = True
        for process in self.processes:
            process.kill()


def row(network: str, method: str, which: int, dtype: str, **changes) -> Workload:
    """On a network, with one of its three batches."""
    batch, changes = BATCHES[network][which], {"steps": STEPS[network], "dtype": dtype} | changes
    return Workload(network, SIZES[network], method, batch, **changes)


def sessions() -> list[Session]:
    """In the order of their worth: a run that is short of time leaves the last out."""
    kinds = [(n, d) for d in DTYPES for n in NETWORKS]
    first = [[row(n, m, b, d) for b in (1, 2) for m in ("ddpm", "dps")] for n, d in kinds]
    every = [r for rows in first for r in rows]
    train = [row(SMALL, "train", 2, DTYPES[-1], steps=1)]
    alone = [row(n, m, 0, d) for n, d in kinds for m in ("ddpm", "dps")]
    pigdm, spectral = ([row(n, m, 1, d) for n, d in kinds] for m in ("pigdm", "spectral"))
    variants = [
        Session(f"jaxdiff, {name}", [row(n, "dps", 1, dtype) for n in NETWORKS], choices)
        for name, (choices, dtype) in VARIANTS.items()
    ]
    fixed = [row(SMALL, "forward", 0, dtype) for dtype in DTYPES]
    found = [
        Session("gemm", fixed),
        Session("jaxdiff", every + train),
        Session("torch", every + train),
        *(Session("torch.compile", rows) for rows in first),
    ]
    others = Session("jaxdiff", alone + pigdm + spectral)
    if DRY:
        return [*found, others]
    return [
        *found,
        Session("torch channels_last", every + train),
        others,
        Session("torch", alone + pigdm),
        *variants,
        Session("torch.compile CUDA graphs", [r for r in alone if r.checkpoint == SMALL]),
        Session("torch.compile max-autotune", [row(LARGE, m, 1, d) for d in DTYPES for m in ("ddpm", "dps")]),
    ]  # fmt: skip


def memory_sessions() -> list[Session]:
    """DPS on the large network, a process for each peak: of one image and of several."""
    rows = [row(LARGE, "dps", which, "float32") for which in ((0,) if DRY else (0, 1))]
    remat = [dataclasses.replace(r, remat=True) for r in rows]
    names = ("torch",) if DRY else ("jaxdiff", "torch", "torch channels_last")
    return [Session("jaxdiff", [r]) for r in remat] + [Session(n, [r]) for n in names for r in rows]


def networks(folder: Path) -> Path:
    """The checkpoints, each a folder in it; the large one's weights are random: any take as long."""
    import jax
    from flax import nnx

    import jaxdiff as jd
    from benchmarks.__main__ import CELEBAHQ

    folder.mkdir(exist_ok=True)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        for name in NETWORKS:
            if (folder / name / "config.json").exists():
                continue
            config = {"tiny": TINY, "celebahq": CELEBAHQ}.get(name)
            loaded = jd.load("faces64")
            if config is not None:
                loaded = jd.UNet2D(config, rngs=nnx.Rngs(0)), jd.Schedule.from_config()
            jd.save(folder / name, *loaded)
    return folder
