"""What `jaxdiff evaluate` does: a grid of samplers and step counts over a data set."""

import csv
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm.auto import tqdm

import jaxdiff as jd
from jaxdiff import metrics, plot
from jaxdiff.data import Dataset, Measurement
from jaxdiff.samplers.presets import NAMES, SPECTRAL, check_name, named
from jaxdiff.util import hosts
from jaxdiff.util.files import replace_file, write_csv
from jaxdiff.util.platform import evaluation_batch

Row = dict[str, Any]


def evaluate(
    dataset: Dataset,
    denoiser: jd.Denoiser,
    *,
    model: str = "faces64",
    samplers: Sequence[str] = ("dps", "dps-adaptive", "pigdm"),
    steps: Sequence[int] = (20, 50, 100),
    out: str | Path,
    covariance: jd.SpectralCovariance | None = None,
    batch_size: int | None = None,
    progress: bool = False,
    sharding: jax.sharding.NamedSharding | None = None,
    precision: str | None = None,
) -> list[Row]:
    """Restore every image of a data set with every sampler at every number of steps, and score.

    One draw an image, whose noise depends on the data set's seed and the image's index alone: not
    on the batch, nor on what else is in the grid. Each cell of the grid is one compiled program
    over batches of images, each with its own kernel and σ. After each batch `results.csv` is
    replaced by one with its rows: a run that was stopped goes on where it was, a larger grid
    reuses the cells it shares, and in the end the file is the same.

    Args:
        dataset: such as `jd.data.course_dataset()`.
        denoiser: the prior.
        model: its name, which stands in settings.json: an `out` holds results of one model.
        samplers: of `jaxdiff.samplers.named.NAMES`.
        steps: numbers of network evaluations.
        out: the folder for results.csv, results.md, results.png and settings.json.
        covariance: of the prior, for the samplers that need one.
        batch_size: images at once; by default what suits the platform.
        progress: show a bar, in network evaluations.
        sharding: spreads each batch over devices. Of several hosts each restores its share of
            the images.
        precision: of float32 products on GPU and TPU, as `jd.sample` takes it.

    Returns:
        The grid's rows of results.csv: sampler, steps, image, sigma, psnr and psnr_degraded, psnr_wiener
        (dB), ssim.

    Raises:
        ValueError: for an unknown sampler, steps that the schedule has not, an `out` that holds
            the results of other data or another model.
    """
    out = Path(out)
    samplers, steps = list(dict.fromkeys(samplers)), sorted(set(steps))
    for name in samplers:
        check_name(name)
    for name in SPECTRAL:
        if name in samplers and covariance is None:
            raise ValueError(f"covariance: {name} needs one: jaxdiff calibrate")
    coefficients = {count: denoiser.schedule.steps(count) for count in steps}
    settings = {"model": model, "seed": dataset.seed, "data": _fingerprint(dataset)}
    if not hosts.first():
        hosts.wait("the folder is checked")  # by the first, which then writes to it
    rows = _resume(out, settings)
    if hosts.first():
        hosts.wait("the folder is checked")
    measurements = [dataset[i] for i in range(len(dataset))]
    devices = 1 if sharding is None else sharding.mesh.size
    size = min(batch_size or evaluation_batch() * devices, len(dataset))
    key = jax.random.key(dataset.seed)

    def missing(name, count):
        own = hosts.share(list(enumerate(measurements)))
        return [i for i, m in own if (name, count, m.name) not in rows]

    todo = {(name, count): missing(name, count) for name in samplers for count in steps}
    total = sum(count * len(indices) for (_, count), indices in todo.items())
    with tqdm(total=total, unit="evaluation", disable=not progress) as bar:
        for (name, count), indices in todo.items():
            bar.set_description(f"{name}, {count} steps")
            for batch in _batches(indices, size):
                scored = _restore(
                    name,
                    coefficients[count],
                    denoiser,
                    covariance,
                    key,
                    measurements,
                    batch,
                    sharding,
                    precision,
                )
                rows |= {(name, count, row["image"]): row for row in scored}
                write_csv(out / _part(), _ordered(rows, measurements))
                bar.update(count * len(set(batch)))
    hosts.wait("all is restored")
    every = _ordered(_rows(out), measurements)  # of all hosts, and of earlier grids
    hosts.wait("all is read")
    if hosts.first():
        _summarise(out, every)
    return [row for row in every if row["sampler"] in samplers and row["steps"] in steps]


def _summarise(out: Path, every: list[Row]) -> None:
    write_csv(out / "results.csv", every)
    for part in out.glob("results-*.csv"):
        part.unlink()
    replace_file(out / "results.md", lambda p: Path(p).write_text(markdown(every)))
    figure = plot.evaluations(every)
    replace_file(out / "results.png", lambda p: figure.savefig(p, dpi=110, format="png"))


def _part() -> str:
    """The file of this host's rows: of several hosts each has its own until the end."""
    return "results.csv" if jax.process_count() == 1 else f"results-{jax.process_index()}.csv"


def _rows(out: Path) -> dict[tuple, Row]:
    found = (row for path in sorted(out.glob("results*.csv")) for row in read(path))
    return {(row["sampler"], row["steps"], row["image"]): row for row in found}


def _batches(indices: list[int], size: int) -> Iterator[list[int]]:
    """Of one size, the last filled up with repeats: a batch of another size would recompile."""
    for start in range(0, len(indices), size):
        batch = indices[start : start + size]
        yield batch + batch[-1:] * (size - len(batch))


def _restore(
    name,
    steps,
    denoiser,
    covariance,
    key,
    measurements: list[Measurement],
    batch: list[int],
    sharding,
    precision,
):
    chosen = [measurements[i] for i in batch]
    shape = (chosen[0].image.shape[0], chosen[0].image.shape[1])
    blurs = [jd.operators.Blur(m.kernel, shape) for m in chosen]
    sampler = named(
        name,
        denoiser,
        jd.operators.Stack(blurs),
        np.stack([m.y for m in chosen]),
        np.array([m.sigma for m in chosen]),
        covariance=covariance,
    )
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, np.array(batch))
    drawn = jd.sample(sampler, steps, key=keys, sharding=sharding, precision=precision)
    images = np.asarray(drawn)[:, 0]
    for m, blur, image in list(zip(chosen, blurs, images))[: len(set(batch))]:
        yield {
            "sampler": name,
            "steps": len(steps),
            "image": m.name,
            "sigma": m.sigma,
            "psnr": metrics.psnr(image, m.image),
            "ssim": metrics.ssim(image, m.image),
            "psnr_degraded": metrics.psnr(m.y, m.image),
            "psnr_wiener": metrics.psnr(metrics.wiener(m.y, blur, m.sigma), m.image),
        }


def _fingerprint(dataset: Dataset) -> str:
    """Of everything that the measurements are drawn from."""
    digest = hashlib.sha256(repr([float(s) for s in dataset.sigmas]).encode())
    for name, image in dataset.images.items():
        digest.update(name.encode() + np.ascontiguousarray(image).tobytes())
    for kernel in dataset.kernels:
        digest.update(np.asarray(kernel, np.float64).tobytes())
    return digest.hexdigest()[:16]


def _resume(out: Path, settings: dict[str, Any]) -> dict[tuple, Row]:
    """The rows that are there already, of the same settings; else a folder to write to."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file: name a folder")
    out.mkdir(parents=True, exist_ok=True)
    path = out / "settings.json"
    if path.exists():
        if (found := json.loads(path.read_text())) != settings:
            differ = ", ".join(k for k in settings if found.get(k) != settings[k])
            raise ValueError(f"{out}: holds results of another {differ}: name another folder")
    elif any(out.iterdir()):
        raise ValueError(f"{out}: holds other files than an evaluation: name another folder")
    text = json.dumps(settings, indent=2) + "\n"
    replace_file(path, lambda p: Path(p).write_text(text))
    return _rows(out)


def _ordered(rows: dict[tuple, Row], measurements: list[Measurement]) -> list[Row]:
    """In one order, however they came: the file does not tell where a run was stopped."""
    place = {m.name: i for i, m in enumerate(measurements)}
    return sorted(
        rows.values(), key=lambda r: (NAMES.index(r["sampler"]), r["steps"], place[r["image"]])
    )


def read(path: str | Path) -> list[Row]:
    """The rows of a results.csv, numbers as numbers."""
    text = {"sampler", "image"}
    with open(path, newline="") as file:
        return [
            {k: v if k in text else int(v) if k == "steps" else float(v) for k, v in row.items()}
            for row in csv.DictReader(file)
        ]


def markdown(rows: Sequence[Row]) -> str:
    """The table of means and standard errors."""
    first = list({row["image"]: row for row in rows}.values())
    means = {k: np.mean([row[f"psnr_{k}"] for row in first]) for k in ("degraded", "wiener")}
    lines = [
        f"One draw of each of {len(first)} images, mean ± standard error over images. "
        f"Degraded: {means['degraded']:.2f} dB, Wiener filter: {means['wiener']:.2f} dB.",
        "",
        "| sampler | network evaluations | PSNR (dB) | SSIM |",
        "|---|---:|---:|---:|",
    ]
    for cell in metrics.summary(rows):
        lines.append(
            f"| {cell['sampler']} | {cell['steps']} | {cell['psnr']:.2f} ± {cell['psnr_se']:.2f} "
            f"| {cell['ssim']:.3f} ± {cell['ssim_se']:.3f} |"
        )
    return "\n".join(lines) + "\n"
