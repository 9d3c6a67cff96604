"""What `jaxdiff evaluate` does: a grid of samplers and step counts over a data set."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm.auto import tqdm

import jaxdiff as jd
from jaxdiff import data, metrics, plot
from jaxdiff.checkpoints.fingerprint import fingerprint
from jaxdiff.commands import images
from jaxdiff.data import Dataset
from jaxdiff.data.sources import find
from jaxdiff.samplers.presets import COURSE, NAMES, preset
from jaxdiff.util import hosts, interrupts
from jaxdiff.util.files import read_csv, replace_file, write_csv, write_text
from jaxdiff.util.names import printable
from jaxdiff.util.platform import evaluation_batch
from jaxdiff.util.runs import Run

Row = dict[str, Any]
Cells = dict[tuple, Row]  # by sampler, steps and image


def evaluate_folder(
    source: Path | None,
    model: str,
    samplers: Sequence[str] | None,
    steps: Sequence[int],
    out: Path,
    *,
    seed: int = 0,
    fit: str = "resize",
    config: Path | None = None,
    class_label: int | None = None,
    remat: bool = False,
    **options: Any,
) -> tuple[list[Row], list[str]]:
    """`evaluate` for a checkpoint and a folder of images, and a line for each bad image.

    Args:
        source: searched with the folders below it, for images and for a .mat of kernels; None
            means the bundled faces and generated kernels.
        samplers: None means those of the course and the spectral ones, as far as the checkpoint has
            what they take.
        options: of `evaluate`.
    """
    run = _run(out)
    run.check()
    _check(samplers or ())
    if source is not None and not source.is_dir():
        raise FileNotFoundError(f"{printable(source)}: no such folder of images")
    denoiser = jd.prior(model, config=config, class_labels=class_label, remat=remat)
    if (shape := denoiser.image_shape) is None:
        raise ValueError(f"--model: {model} names no sample_size in its config")
    covariance = None
    if any(preset(name).needs_table for name in samplers or COURSE):
        table = jd.SpectralCovariance
        covariance = table.find(model) if samplers is None else table.load(model)
    names = samplers or [n for n in COURSE if preset(n).suits(denoiser, covariance)]
    dataset, bad = _dataset(source, shape, seed, fit)
    rows = evaluate(
        dataset,
        denoiser,
        model=model,
        samplers=names,
        steps=steps,
        out=out,
        covariance=covariance,
        **options,
    )
    return rows, bad


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
    overwrite: bool = False,
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
        model: its name, for settings.json.
        samplers: of `jaxdiff.samplers.presets.NAMES`.
        steps: numbers of network evaluations.
        out: the folder for results.csv, results.md, results.png and settings.json: of one data
            set, one set of weights and one table.
        covariance: of the prior, for the samplers that need one.
        batch_size: images at once; by default what suits the platform.
        progress: show a bar, in network evaluations.
        sharding: spreads each batch over devices. Of several hosts each restores its share of
            the images.
        precision: of float32 products on GPU and TPU, as `jd.sample` takes it.
        overwrite: remove the results in `out` first.

    Returns:
        The grid's rows of results.csv: sampler, steps, image, sigma, psnr and psnr_degraded,
        psnr_wiener (dB), ssim.

    Raises:
        ValueError: for an unknown sampler, steps that the schedule has not, an `out` that holds
            the results of other data or other weights, a restoration that is not finite.
    """
    out = Path(out)
    run = _run(out)
    run.check()
    samplers, steps = list(dict.fromkeys(samplers)), sorted(set(steps))
    _check(samplers)
    for name in samplers:
        if preset(name).needs_table:
            if covariance is None:
                raise ValueError(f"covariance: {name} needs one: jaxdiff calibrate")
            covariance.check(denoiser)
    for count in steps:
        denoiser.schedule.steps(count)  # which the schedule may not have
    settings = {"seed": dataset.seed, "data": _fingerprint(dataset)}
    settings["weights"] = fingerprint(denoiser, denoiser.schedule)
    if covariance is not None:
        settings["table"] = fingerprint(covariance)
    names = list(dataset.images)
    devices = 1 if sharding is None else sharding.mesh.size
    size = min(batch_size or evaluation_batch() * devices, len(dataset))
    key = jax.random.key(dataset.seed)
    with run.hold(settings, {"model": model}, overwrite=overwrite):
        rows = _rows(out)
        mine = hosts.share(list(enumerate(names)))
        todo = {
            (sampler, count): [i for i, image in mine if (sampler, count, image) not in rows]
            for sampler in samplers
            for count in steps
        }
        total = sum(count * len(indices) for (_, count), indices in todo.items())
        with tqdm(total=total, unit="evaluation", disable=not progress) as bar:
            for (sampler, count), indices in todo.items():
                bar.set_description(f"{sampler}, {count} steps")
                for batch in images.batches(indices, size):
                    interrupts.keep(
                        f"{len(rows)} rows are in {printable(out)}/results.csv, the same command "
                        "goes on"
                    )
                    scored = _restore(
                        sampler,
                        count,
                        denoiser,
                        covariance,
                        key,
                        dataset,
                        images.filled(batch, size),
                        sharding,
                        precision,
                    )
                    rows |= {(sampler, count, row["image"]): row for row in scored}
                    write_csv(out / _rows_file(), _ordered(rows, names))
                    bar.update(count * len(batch))
        hosts.wait()  # all is restored
        every = _ordered(_rows(out), names)  # of all hosts, and of earlier grids
        hosts.wait()  # all is read
        if hosts.first():
            _summarise(out, every)
    return [row for row in every if row["sampler"] in samplers and row["steps"] in steps]


def _run(out: Path) -> Run:
    return Run(
        out, "evaluation", lambda found: [*out.glob("results*.csv"), *out.glob("results.[mp]*")]
    )


def _check(samplers: Sequence[str]) -> None:
    for name in samplers:
        preset(name)


def _dataset(source: Path | None, shape, seed: int, fit: str) -> tuple[Dataset, list[str]]:
    """The course's data set of a folder's good images, and a line for each bad one."""
    if source is None:
        if shape[0] != shape[1] or shape[2] not in (1, 3):
            raise ValueError("the bundled faces are square, RGB or grey: name a folder of images")
        return data.course_dataset(None, shape[0], seed, fit, shape[2]), []
    mats = find(source, ".mat")
    generated = data.course_dataset(size=min(shape[:2])).kernels
    good, bad = images.read_all(source, shape, fit)
    return Dataset(good, data.load_kernels(mats[0]) if mats else generated, seed=seed), bad


def _summarise(out: Path, every: list[Row]) -> None:
    write_csv(out / "results.csv", every)
    for part in out.glob("results-*.csv"):
        part.unlink()
    write_text(out / "results.md", markdown(every))
    figure = plot.evaluations(every)
    replace_file(out / "results.png", lambda p: figure.savefig(p, dpi=110, format="png"))


def _rows_file() -> str:
    """The file of this host's rows: of several hosts each has its own until the end."""
    return "results.csv" if jax.process_count() == 1 else f"results-{jax.process_index()}.csv"


def _rows(out: Path) -> Cells:
    found = (row for path in sorted(out.glob("results*.csv")) for row in read(path))
    return {(row["sampler"], row["steps"], row["image"]): row for row in found}


def _restore(
    name: str,
    count: int,
    denoiser,
    covariance,
    key,
    dataset: Dataset,
    batch: list[int],
    sharding,
    precision,
) -> Iterator[Row]:
    """The rows of a batch of images, which is filled up with repeats of its last."""
    chosen = [dataset[i] for i in batch]
    shape = (chosen[0].image.shape[0], chosen[0].image.shape[1])
    blurs = [jd.operators.Blur(m.kernel, shape) for m in chosen]
    sampler = preset(name).sampler(
        denoiser,
        jd.operators.Stack(blurs),
        np.stack([m.y for m in chosen]),
        np.array([m.sigma for m in chosen]),
        covariance=covariance,
    )
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, np.array(batch))
    drawn = jd.sample(
        sampler, sampler.steps(count), key=keys, sharding=sharding, precision=precision
    )
    restored = np.asarray(drawn)[:, 0]
    for m, blur, image in list(zip(chosen, blurs, restored))[: len(set(batch))]:
        if not np.isfinite(image).all():
            raise ValueError(
                f"{m.name}: {name} in {count} steps gave an image that is not finite: leave "
                "that sampler out of --samplers, or name another --model"
            )
        yield {
            "sampler": name,
            "steps": count,
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


def _ordered(rows: Cells, names: list[str]) -> list[Row]:
    """In one order, however they came: the file does not tell where a run was stopped."""
    place = {name: i for i, name in enumerate(names)}
    return sorted(
        rows.values(), key=lambda r: (NAMES.index(r["sampler"]), r["steps"], place[r["image"]])
    )


def read(path: str | Path) -> list[Row]:
    """The rows of a results.csv, numbers as numbers."""
    return read_csv(Path(path), text=("sampler", "image"), whole=("steps",))


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
