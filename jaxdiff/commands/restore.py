"""What `jaxdiff restore` does: read, degrade where asked, sample, score, draw, write."""

import dataclasses
import json
import shutil
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

import jaxdiff as jd
from jaxdiff import data, metrics, plot
from jaxdiff.commands.cameras import operator as named_operator
from jaxdiff.samplers.presets import SPECTRAL, check_name, named
from jaxdiff.util import hosts
from jaxdiff.util.files import replace_file


@dataclasses.dataclass(frozen=True)
class Settings:
    """The command line's choices, as they stand in metrics.json."""

    operator: str | None
    sigma: float
    degrade: bool
    sampler: str | None
    scale: float | None
    steps: int | None
    samples: int
    model: str
    seed: int
    fit: str | None
    batch_size: int | None
    remat: bool = False
    precision: str | None = None


@dataclasses.dataclass(frozen=True)
class Job:
    """One image: its number and name, what was measured, and the truth where it is known."""

    number: int
    name: str
    y: np.ndarray
    truth: np.ndarray | None


def restore_images(
    source: Path | None,
    settings: Settings,
    out: Path,
    console: Console,
    sharding: jax.sharding.NamedSharding | None = None,
) -> list[str]:
    """Restore the images, write `out`, print a table; returns a line for each bad image.

    Of several hosts each restores and writes its share of the images.
    """
    if settings.sampler is not None:
        check_name(settings.sampler)
    if source is not None and not source.exists():
        raise FileNotFoundError(f"{source}: no such image or folder")
    if not settings.degrade and settings.operator is None:
        raise ValueError(
            "--kernel or --operator: say how the images were taken, or pass --degrade for clean ones"
        )
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out: {out} is a file, name a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / "metrics.json").exists():
        raise ValueError(f"--out: {out} holds other files than a restoration, name another folder")
    hosts.wait("the folder is checked")  # before the first of several writes to it
    unet, schedule = jd.load(settings.model)
    size, channels = unet.config.size, unet.config.in_channels
    if size is None:
        raise ValueError(f"--model: {settings.model} names no sample_size in its config")
    name, covariance = _choose_sampler(settings)
    count = settings.steps or (10 if name in SPECTRAL else 20)
    settings = dataclasses.replace(settings, sampler=name, steps=count)
    steps = schedule.steps(count)
    operator = named_operator(settings.operator or "blur:motion:9,0", size)
    shape = (*size, channels)
    output = jax.eval_shape(operator, jax.ShapeDtypeStruct(shape, np.float32)).shape
    jobs, bad, single = _read_jobs(source, settings, operator, shape, output)
    started = time.perf_counter()
    images = {}
    if jobs:
        sampler = named(
            name,
            jd.Denoiser(unet, schedule, remat=settings.remat),
            operator,
            np.stack([job.y for job in jobs]),
            settings.sigma,
            settings.scale,
            covariance,
        )
        samples = _sample(sampler, steps, jobs, settings, sharding, console)
        for job, drawn in zip(jobs, samples):
            images[job.name] = _score(job, drawn, operator, settings)
            folder = out if single else out / job.name
            _write_job(folder, job, drawn, images[job.name].pop("wiener"))
    if jax.process_count() > 1 or jobs:
        seconds = round(time.perf_counter() - started, 2)
        report = {"seconds": seconds, "images": images, "failed": bad}
        report = _gather(out, {"settings": dataclasses.asdict(settings)} | report, single)
        if hosts.first():
            _print(console, report, settings, out)
        bad = report["failed"]
    return bad


def _sample(sampler, steps, jobs, settings: Settings, sharding, console: Console) -> np.ndarray:
    """The posterior samples of all jobs; an image's noise depends on its own number alone."""
    key = jax.random.key(settings.seed)
    samples, converged = jd.sample(
        sampler,
        steps,
        key=jax.vmap(jax.random.fold_in, (None, 0))(key, np.array([job.number for job in jobs])),
        n=settings.samples,
        batch_size=settings.batch_size,
        progress=console.is_terminal,
        keep=_converged,
        sharding=sharding,
        precision=settings.precision,
    )
    if not np.all(converged):
        warnings.warn(
            f"conjugate gradients did not reach their tolerance in {np.mean(~converged):.0%} of the "
            "steps: the operator is badly conditioned for so small a --sigma",
            stacklevel=1,
        )
    return np.asarray(samples)


def _gather(out: Path, report: dict[str, Any], single: bool) -> dict[str, Any]:
    """Write metrics.json, of several hosts the first with what all of them did."""
    out.mkdir(parents=True, exist_ok=True)

    def write(name, content):
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        replace_file(out / name, lambda p: Path(p).write_text(text))

    if jax.process_count() > 1:
        parts = [f"metrics-{i}.json" for i in range(jax.process_count())]
        write(parts[jax.process_index()], report)
        hosts.wait("parts are written")
        every = [json.loads((out / part).read_text()) for part in parts]
        report["seconds"] = max(part["seconds"] for part in every)
        report["images"] = dict(sorted(i for part in every for i in part["images"].items()))
        report["failed"] = [line for part in every for line in part["failed"]]
        hosts.wait("parts are read")
        (out / parts[jax.process_index()]).unlink()
    if hosts.first():
        write("metrics.json", report | (next(iter(report["images"].values())) if single else {}))
    return report


def _print(console: Console, report: dict[str, Any], settings: Settings, out: Path) -> None:
    images = report["images"]
    console.print(_table(images, settings))
    first = next(iter(images.values()), {})
    if len(images) == 1 and "coverage" in first:
        console.print(
            f"error/spread {first['error_over_spread']:.2f} (1 is calibrated), coverage "
            f"{first['coverage']:.2f} (nominal {first['coverage_nominal']:.2f})"
        )
    console.print(
        f"{len(images)} × {settings.samples} samples in {report['seconds']:.1f} s: {out}/"
    )


def _converged(x, info):
    """For `keep=`, which is static: one function, and the program of one call serves the next."""
    return info.get("cg_converged", True)


def _choose_sampler(settings: Settings) -> tuple[str, Any]:
    """The sampler that was named, else spectral where the prior has a table; and its table."""
    if settings.sampler not in (None, *SPECTRAL):
        return settings.sampler, None
    try:
        return settings.sampler or "spectral", jd.SpectralCovariance.load(settings.model)
    except FileNotFoundError:
        if settings.sampler is not None:
            raise
        return "pigdm-paper", None


def _read_jobs(source, settings: Settings, operator, shape, output):
    """This host's images that can be restored, a line for each that can't, whether it is one."""
    if source is None:
        if shape[0] != shape[1] or shape[2] != 3:
            raise ValueError("the bundled portrait is square and RGB: name an image of your own")
        example = data.example(shape[0])
        return hosts.share([_job(0, "portrait", example, settings, operator)]), [], True
    paths = data.list_images(source) if source.is_dir() else [source]
    # A measurement has the operator's output shape, a clean image the prior's.
    wanted = shape if settings.degrade else output
    jobs, bad = [], []
    stems = [p.stem for p in paths]
    for i, path in hosts.share(list(enumerate(paths))):
        try:
            image = data.read_image(path, wanted[2])
            try:
                image = data.fit(image, wanted[:2], settings.fit)
            except ValueError as e:
                raise ValueError(f"{path}: {e} (--fit resize or --fit crop)") from e
        except (ValueError, OSError) as e:
            if not source.is_dir():
                raise
            bad.append(str(e))
            continue
        name = path.stem if stems.count(path.stem) == 1 else path.name
        jobs.append(_job(i, name, image, settings, operator))
    return jobs, bad, not source.is_dir()


def _job(number, name, image, settings: Settings, operator) -> Job:
    if not settings.degrade:
        return Job(number, name, np.asarray(operator.project(image)), None)
    y = np.asarray(operator(image))
    noise = np.random.default_rng([settings.seed, number]).standard_normal(y.shape)
    y = np.asarray(operator.project(y + settings.sigma * noise))
    return Job(number, name, y.astype(np.float32), image)


def _score(job: Job, samples: np.ndarray, operator, settings: Settings) -> dict[str, Any]:
    """PSNR of everything where the truth is known; the Wiener filter's image either way."""
    mean = samples.mean(0)
    wiener = metrics.wiener(job.y, operator, settings.sigma, mean.shape)
    result: dict[str, Any] = {"wiener": wiener}
    residual = np.asarray(operator(mean)) - job.y
    result["residual_rms"] = float(np.sqrt(np.mean(residual**2)))
    if job.truth is not None:
        if job.y.shape == job.truth.shape:
            result["psnr_degraded"] = metrics.psnr(job.y, job.truth)
        result |= {
            "psnr_wiener": metrics.psnr(result["wiener"], job.truth),
            "psnr_samples": [metrics.psnr(s, job.truth) for s in samples],
            "psnr_restored": metrics.psnr(mean, job.truth),
        }
        if len(samples) > 1:
            result |= metrics.calibration(samples[None], job.truth[None])
    return result


def _write_job(folder: Path, job: Job, samples: np.ndarray, wiener: np.ndarray) -> None:
    """All pictures of one image: drawn in a temporary folder, then moved over."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".writing-"))
    try:
        data.write_image(temporary / "degraded.png", job.y)
        data.write_image(temporary / "restored.png", samples.mean(0))
        before = [("degraded", job.y), ("Wiener filter", wiener)]
        figure = plot.posterior(samples, job.truth, before=before)
        figure.savefig(temporary / "comparison.png", dpi=130)
        for path in temporary.iterdir():
            path.replace(folder / path.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _table(results: dict[str, dict[str, Any]], settings: Settings) -> Table:
    table = Table("image", title=f"{settings.sampler}, {settings.steps} steps, PSNR in dB")
    columns = {
        "degraded": "psnr_degraded",
        "Wiener filter": "psnr_wiener",
        "one sample": "psnr_samples",
        f"mean of {settings.samples}": "psnr_restored",
    }
    scored = settings.degrade
    for heading in columns if scored else ("residual rms",):
        table.add_column(heading, justify="right")
    for name, result in results.items():
        if scored:
            values = [result.get(key) for key in columns.values()]
            table.add_row(name, *("–" if v is None else f"{np.mean(v):.2f}" for v in values))
        else:
            table.add_row(name, f"{result['residual_rms']:.4f}")
    return table
