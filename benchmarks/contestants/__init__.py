"""Who is timed, and at what: a module for each, which imports what it needs and nothing of the others."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SIGMA = 10 / 255
# Who takes part, in what: the peers have no network of their own to train here, and diffuse-jax no ΠGDM.
SAMPLERS = ("ddpm", "dps", "pigdm")
METHODS = {
    "jaxdiff": ("forward", *SAMPLERS, "train"),
    "torch": ("forward", *SAMPLERS, "train"),
    "torch channels_last": ("forward", *SAMPLERS, "train"),
    "torch.compile": ("forward", *SAMPLERS, "train"),
    "azula": SAMPLERS,
    "diffuse-jax": SAMPLERS[:2],
}
PACKAGES = {"azula": "azula", "diffuse-jax": "diffuse"}
COMPILED = {  # the modes of torch.compile; those beyond the first take part on a GPU only
    "torch.compile": None,
    "torch.compile CUDA graphs": "reduce-overhead",
    "torch.compile max-autotune": "max-autotune",
}


@dataclasses.dataclass(frozen=True)
class Workload:
    """A method on a checkpoint's network: so many steps of so many images at once.

    `remat` is jaxdiff's; the others do what they do without. `dtype` is what the network computes
    in; states are float32.
    """

    checkpoint: str
    size: int
    method: str
    batch: int
    steps: int = 1
    remat: bool = False
    dtype: str = "float32"

    def __str__(self):
        steps = f", {self.steps} steps" if self.steps > 1 else ""
        remat = ", remat" if self.remat else ""
        dtype = "" if self.dtype == "float32" else f", {self.dtype}"
        return f"{self.checkpoint} {self.size}², {self.method}, batch {self.batch}{steps}{remat}{dtype}"


def images(workload: Workload) -> np.ndarray:
    shape = (workload.batch, workload.size, workload.size, 3)
    return np.random.default_rng(0).standard_normal(shape).astype("f")


def peak_mb(name: str) -> float:
    """The most memory of the accelerator that was in use, or where there is none, resident."""
    if name.startswith(("jaxdiff", "diffuse-jax")):
        import jax

        stats = jax.devices()[0].memory_stats()
        if stats:
            return stats["peak_bytes_in_use"] / 2**20
    else:
        import torch

        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated() / 2**20
    try:  # not getrusage's ru_maxrss, which a process has from the one that started it
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:  # no Linux
        return float("nan")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def contestant(name: str, workload: Workload, folder: str) -> Callable[[], Any]:
    """What does the work, once a call."""
    if name.startswith("jaxdiff"):  # and one with JAXDIFF_CHOICES
        from benchmarks.contestants import of_jax

        return of_jax.contestant(workload, folder)
    if name == "diffuse-jax":
        from benchmarks.contestants import of_diffuse

        return of_diffuse.contestant(workload, folder)
    from benchmarks.contestants import of_torch

    return (
        of_torch.gemm(workload.dtype)
        if name == "gemm"
        else of_torch.contestant(workload, folder, name)
    )
