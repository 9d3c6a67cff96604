"""`python -m benchmarks.loading`: what loading takes beside reading the file, in seconds and memory.

Files of the layouts that are published, 450 MB (CelebA-HQ's UNet2DModel) and 2.2 GB (guided-diffusion's
imagenet256), their weights random. Each is read through a small buffer, read into memory of its own, as
whatever keeps it must, and loaded, by a process of its own, with the file in the system's cache and out of it. Memory is the most that is not the file's own pages.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
BLOCK = 1 << 24


def write_celebahq(path: Path) -> None:
    """A UNet2DModel's tensors as safetensors, and its config beside them."""
    from flax import nnx
    from safetensors.numpy import save_file

    import jaxdiff as jd
    from benchmarks.__main__ import CELEBAHQ
    from jaxdiff.checkpoints.names import torch_name, torch_shape
    from jaxdiff.nn.unet import abstract_unet

    config = jd.UNet2DConfig(**CELEBAHQ)
    params = nnx.to_flat_state(nnx.state(abstract_unet(config)))
    shapes = {torch_name(p): torch_shape(p, leaf.shape) for p, leaf in params}
    save_file({name: _random(shape) for name, shape in shapes.items()}, path)
    path.with_suffix(".json").write_text(json.dumps(config.to_dict()), encoding="utf-8")


def write_imagenet(path: Path) -> None:
    """guided-diffusion's 552,814,086 numbers as torch saves them."""
    import torch

    from convert.guided_diffusion import ADM, IMAGENET

    with torch.device("meta"):
        shapes = {name: tuple(t.shape) for name, t in ADM(**IMAGENET).state_dict().items()}
    torch.save({name: torch.from_numpy(_random(shape)) for name, shape in shapes.items()}, path)


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "celebahq256.safetensors": write_celebahq,
    "imagenet256.pt": write_imagenet,
}


def _random(shape: tuple[int, ...]) -> np.ndarray:
    some = np.random.default_rng(0).standard_normal(9973, np.float32)
    return np.resize(0.02 * some, shape)


def forget(path: Path) -> None:
    """Let the system drop a file from its cache."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read(path: Path) -> None:
    """All of a file through one small buffer, which keeps none of it."""
    buffer = bytearray(BLOCK)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def anonymous() -> int:
    """Bytes of this process that are no file's pages."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon"):
            return 1024 * int(line.split()[1])
    raise OSError("/proc/self/status has no RssAnon: this is for Linux")


class Peak:
    """The most memory while it is held, above what was there."""

    def __enter__(self):
        self.before = self.most = anonymous()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while not self.ended.wait(0.002):
            self.most = max(self.most, anonymous())

    def __exit__(self, *_: Any) -> None:
        self.ended.set()
        self.thread.join()
        self.most = max(self.most, anonymous())


def measure(path: Path, cold: bool) -> dict[str, Any]:
    """Seconds to read and to load, and memory; imports, and JAX's start, are not counted."""
    import jax
    import jax.numpy as jnp

    import jaxdiff as jd

    jax.block_until_ready(jnp.zeros(1))
    assert jd.prior  # which imports what reads the formats
    config = path.with_suffix(".json")
    seconds = []
    for work in (
        read,
        Path.read_bytes,
        lambda p: jd.prior(p, config=config if config.exists() else None),
    ):
        if cold:
            forget(path)
        started = time.perf_counter()
        with Peak() as peak:
            found = work(path)
            if not isinstance(found, bytes):
                jax.block_until_ready(jax.tree.leaves(found))
        seconds.append(time.perf_counter() - started)
        del found
    size = path.stat().st_size
    copies = (peak.most - peak.before) / size
    return {
        "file": path.name,
        "bytes": size,
        "through": seconds[0],
        "into": seconds[1],
        "load": seconds[2],
        "copies": copies,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Loading beside reading the file.")
    parser.add_argument("--folder", type=Path, help="keeps the files; by default a temporary one")
    parser.add_argument("--only", default="", help="layouts whose name begins with it")
    parser.add_argument("--measure", type=Path, help="one file, in this process, as JSON")
    parser.add_argument("--cold", action="store_true", help="with the file out of the cache")
    arguments = parser.parse_args()
    if arguments.measure is not None:
        print(json.dumps(measure(arguments.measure, arguments.cold)))
        return
    head = "read (s)", "into memory (s)", "load (s)", "load / read", "load / into memory"
    table = Table("file", "cache", *head, "copies in memory")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        for name, write in LAYOUTS.items():
            if not name.startswith(arguments.only):
                continue
            if not (path := folder / name).exists():
                write(path)
            for cold in (True, False):
                command = [sys.executable, "-W", "ignore", "-m", "benchmarks.loading"]
                command += ["--measure", str(path), *(["--cold"] if cold else [])]
                done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
                row = json.loads(done.stdout.splitlines()[-1])
                through, into, load = (row[k] for k in ("through", "into", "load"))
                numbers = (through, into, load, load / through, load / into, row["copies"])
                table.add_row(name, "cold" if cold else "warm", *(f"{n:.2f}" for n in numbers))
    Console().print(table)


if __name__ == "__main__":
    main()
