"""What is stopped: each command with small inputs, what its folder may hold, what it must in the end."""

import json
import multiprocessing
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from PIL import Image

import jaxdiff as jd
from jaxdiff import data
from jaxdiff.checkpoints.fingerprint import fingerprint
from jaxdiff.nn.unet import abstract_unet
from jaxdiff.util.files import read_csv, read_json
from tests.preloaded import run

CONFIG = {
    "sample_size": 16,
    "block_out_channels": [4],
    "down_block_types": ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"],
    "mid_block_type": None,
    "layers_per_block": 1,
    "norm_num_groups": 2,
}
TIMES = ("seconds", "images_per_second")  # how a key or a column begins that depends on time
Contents = dict[str, Any]


@dataclass
class Job:
    """A command line that writes to a folder.

    Args:
        arguments: of `jaxdiff`; OUT is the folder.
        before: what the folder holds before.
        done: what of the work is in a folder; raises where one, left at any moment, is not as it may be.
    """

    name: str
    arguments: list[str]
    before: Path | None
    done: Callable[[Path], set]

    def run(self, out: Path, cache: Path, deadly: float = 0) -> int | None:
        """How often it changed `out`; None where it was killed before it ended (see `preloaded.run`).

        It is forked from a process that has imported all there is to, which takes longer than
        these commands; compiled programs are in `cache`.
        """
        if not out.exists() and self.before is not None:
            shutil.copytree(self.before, out)
        arguments = [str(out) if a == "OUT" else a for a in self.arguments]
        said = cache.with_name(f"{cache.name}-said")
        server = multiprocessing.get_context("forkserver")
        server.set_forkserver_preload(["tests.preloaded"])
        process = server.Process(
            target=run, args=(arguments, str(cache), str(said), str(out), deadly)
        )
        process.start()
        process.join(600)
        process.kill()  # where it did not end
        process.join()
        code, text = process.exitcode, said.read_text(encoding="utf-8")
        if code == -signal.SIGKILL:
            return None
        assert code == 0, f"exit code {code}: {text[-900:]}"
        return int(text.splitlines()[-1])


def jobs(root: Path, images: int = 6) -> dict[str, Job]:
    """The commands that write more than one file, and their inputs in `root`."""
    photos = photographs(root / "photos", images)
    model, other, old = root / "model", root / "other", root / "old"
    checkpoint(model, seed=0)
    checkpoint(other, seed=1, beta_end=0.01)
    shutil.copytree(other, old)
    (root / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    lines = {
        "restore": f"PHOTOS --model {model} --degrade --kernel gaussian:3,1 --samples 2 --sampler dps "
        "--steps 2 --out OUT",
        "evaluate": f"PHOTOS --model {model} --samplers dps,pigdm --steps 2,3 --out OUT",
        "train": f"PHOTOS --size 16 --config {root}/config.json --steps 12 --batch-size 4 "
        "--save-every 2 --out OUT",
        "calibrate": "OUT PHOTOS --levels 3",
        "convert": f"{model} OUT --force",
    }
    done = {"restore": restored, "evaluate": evaluated, "train": trained}
    return {
        name: Job(
            name,
            [name, *line.replace("PHOTOS", str(photos)).split()],
            None if name in done else old,
            done.get(name, written),
        )
        for name, line in lines.items()
    }


def photographs(folder: Path, count: int, size: int = 16) -> Path:
    """Small pictures, no two alike."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        data.write_image(folder / f"{i:03}.png", rng.random((size, size, 3)))
    return folder


def checkpoint(folder: Path, seed: int, **schedule: Any) -> None:
    """One that compiles in no time, with a table of its own."""
    graph, shapes = nnx.split(abstract_unet(jd.UNet2DConfig.from_dict(CONFIG)))
    rng = np.random.default_rng(seed)
    weights = jax.tree.map(lambda w: 0.1 * rng.standard_normal(w.shape).astype("f"), shapes)
    denoiser = jd.Denoiser(nnx.merge(graph, weights), jd.Schedule.from_config(schedule))
    jd.save(folder, denoiser.network, denoiser.schedule)
    levels = np.array([0, 500, 999])
    jd.SpectralCovariance(
        np.full((3, 9, 1, 1), 1 + seed) * np.eye(3, dtype=np.float32),
        levels,
        denoiser.schedule.alphas_cumprod[levels],
        1 / 16,
        weights=denoiser.digest,
    ).save(folder)


def contents(out: Path) -> Contents:
    """What is in a folder and does not depend on time; checkpoints of a training are its own matter."""
    found: Contents = {}
    for path in sorted(p for p in out.rglob("*") if p.is_file()):
        name = str(path.relative_to(out))
        if path.suffix == ".json":
            found[name] = _timeless(read_json(path))
        elif path.suffix == ".csv":
            found[name] = [_timeless(row) for row in _rows(path)]
        elif not name.startswith("checkpoints/"):
            found[name] = path.read_bytes().replace(bytes(out), b"OUT")  # in a model's card
    return found


def _timeless(content: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in content.items() if not k.startswith(TIMES) and k != "dates"}


def restored(out: Path) -> set:
    """The images that are there, each with all files or none."""
    _whole(out)
    found = {folder.name: len(list(folder.iterdir())) for folder in out.glob("[0-9]*")}
    assert set(found.values()) <= {6}, found
    return set(found)


def evaluated(out: Path) -> set:
    """The rows."""
    _whole(out)
    path = out / "results.csv"
    return {tuple(row.values()) for row in _rows(path)} if path.exists() else set()


def trained(out: Path) -> set:
    """The steps that are not done again; what is exported is a prior with its card."""
    _whole(out)
    if (out / "model").exists():
        jd.load(out / "model")
        assert (out / "model" / "README.md").read_text(encoding="utf-8").strip()
    steps = [int(p.name) for p in out.glob("checkpoints/*") if p.name.isdigit()]
    return set(range(max(steps, default=0)))


def written(out: Path) -> set:
    """The weights, schedule and table, and their picture: of one writing, if they are of each other."""
    _whole(out)
    denoiser = jd.Denoiser(*jd.load(out))
    table = jd.SpectralCovariance.load(out)
    table.check(denoiser)
    return {fingerprint(denoiser.network, denoiser.schedule, table)}


def _whole(out: Path) -> None:
    """Every file but hidden ones can be read to its end."""
    for path in out.rglob("*"):
        parts = path.relative_to(out).parts
        if path.is_dir() or "checkpoints" in parts or any(part.startswith(".") for part in parts):
            continue
        if path.suffix == ".json":
            read_json(path)
        elif path.suffix == ".png":
            Image.open(path).load()
        elif path.suffix == ".csv":
            assert _rows(path), path


def _rows(path: Path) -> list[dict[str, Any]]:
    return read_csv(path, text=("sampler", "image"), whole=("step", "steps"))
