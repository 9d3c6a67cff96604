"""What `jaxdiff restore` does: image by image it reads, degrades where asked, samples and writes."""

import dataclasses
import itertools
import platform
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm.auto import tqdm

import jaxdiff as jd
from jaxdiff.checkpoints.fingerprint import fingerprint
from jaxdiff.commands import images
from jaxdiff.commands.cameras import Camera
from jaxdiff.commands.pictures import FILES, METRICS, Job, restored, score, write
from jaxdiff.commands.task import FREE, Item, Settings, Task, read, task_of
from jaxdiff.util import hosts, interrupts
from jaxdiff.util.files import read_json, write_json
from jaxdiff.util.fingerprint import of_files
from jaxdiff.util.names import folder_names, printable
from jaxdiff.util.platform import evaluation_batch
from jaxdiff.util.runs import SETTINGS, Run
from jaxdiff.util.seconds import Seconds


def restore_images(
    source: Path | None,
    settings: Settings,
    out: Path,
    *,
    overwrite: bool = False,
    progress: bool = False,
    say: Callable[[str], Any] = lambda text: None,
    sharding: jax.sharding.NamedSharding | None = None,
) -> dict[str, Any]:
    """Restore images one small batch after the other, each written as soon as it is done.

    The noise of an image depends on the seed and its number alone. What `out` holds of the same
    settings, weights and images is not done again. Of several hosts each restores its share.

    Args:
        source: an image, a folder of them, or None for the bundled portrait.
        overwrite: remove an earlier restoration in `out` first.
        progress: show a bar.
        say: is told what takes long.

    Returns:
        The content of metrics.json; under "failed" a line for each bad image.

    Raises:
        ValueError, OSError: before anything is written, for what cannot be restored at all; for a
            folder of other results, or one that another process writes to.
    """
    single = source is None or not source.is_dir()
    run = Run(out, "restoration", lambda found: _results(out, found))
    run.check()
    items = _items(source, out)
    task, first = task_of(settings, items)  # what a sampler refuses is known before all is written
    if single and first is None:
        read(task, items[0])  # and why the one image cannot be read
    compared = _described(task) | {
        "weights": fingerprint(task.denoiser, task.denoiser.schedule),
        "table": fingerprint(task.covariance),
        "images": of_files((i.file, i.path) for i in items if i.path is not None),
    }
    names = ["" if single else item.name for item in items]
    with run.hold(compared, {"model": settings.model, "items": names}, overwrite=overwrite):
        folders = {item.name: out / name for item, name in zip(items, names)}
        seconds, bad = Seconds(), []
        results = _done(folders, single)
        todo = [item for item in items if item.name not in results]
        mine = [item for item in hosts.share(items) if item in todo]
        size = min(_at_once(settings, sharding), max(len(mine), 1))
        converged: list[float] = []
        compiled = set()
        with tqdm(total=len(mine), unit="image", disable=not progress or single) as bar:
            for some in images.batches(mine, size):
                interrupts.keep(_kept(out, len(results), len(items)))
                jobs = []
                for item in some:
                    try:
                        jobs.append(read(task, item))
                    except (ValueError, OSError) as e:
                        bad.append(str(e))
                for camera, alike in _by_camera(jobs):
                    if camera.canvas not in compiled:
                        compiled.add(camera.canvas)
                        say(f"compiling for {camera.canvas[0]}×{camera.canvas[1]}…")
                    bar_inside = progress and single
                    for job, samples, kernels, watched in _sample(
                        task, alike, size, sharding, bar_inside
                    ):
                        converged.append(float(watched.converged.mean()))
                        if not np.isfinite(samples).all():
                            bad.append(_not_finite(job, task.settings))
                            continue
                        misfit = float(np.median(watched.misfit))
                        done = restored(job, samples, kernels, misfit)
                        result = score(done)
                        of_one = None if single else result
                        write(out, folders[job.name], done, of_one, settings.save_draws)
                        results[job.name] = result
                bar.update(len(some))
                if not single and jax.process_count() == 1:
                    write_json(out / METRICS, _report(task, results, bad, seconds))
        if converged and (missed := 1 - np.mean(converged)) > 0:
            warnings.warn(
                f"conjugate gradients did not reach their tolerance in {missed:.0%} of the steps: "
                "the operator is badly conditioned for so small a --sigma",
                stacklevel=1,
            )
        shares = hosts.gather([results, bad])
        together = {name: result for share, _ in shares for name, result in share.items()}
        results = {item.name: together[item.name] for item in items if item.name in together}
        bad = [line for _, lines in shares for line in lines]
        report = _report(task, results, bad, seconds)
        if single:
            report |= next(iter(results.values()), {})
        if not todo and (out / METRICS).exists():
            report = read_json(out / METRICS)  # there was nothing to do
        elif hosts.first() and (results or not single):
            write_json(out / METRICS, report)
        interrupts.keep(_kept(out, len(results), len(items)))
    return report


def _items(source: Path | None, out: Path) -> list[Item]:
    if source is None:
        return [Item(0, "portrait", None, "portrait")]
    paths = images.find(source, out)
    files = images.relative(paths, source)
    names = folder_names(files, reserved=(METRICS, SETTINGS, *FILES))
    return [
        Item(i, name, path, printable(file))
        for i, (name, path, file) in enumerate(zip(names, paths, files))
    ]


def _by_camera(jobs: list[Job]) -> Iterator[tuple[Camera, list[Job]]]:
    """The jobs that one program restores together."""
    for _, alike in itertools.groupby(jobs, key=lambda job: id(job.camera)):
        found = list(alike)
        yield found[0].camera, found


def _at_once(settings: Settings, sharding) -> int:
    """How many images are restored at once, so that the samples of all of them fill a device."""
    devices = 1 if sharding is None else sharding.mesh.size
    samples = settings.batch_size or evaluation_batch() * devices
    return max(1, samples // settings.samples)


def _sample(
    task: Task, jobs: list[Job], size: int, sharding, progress: bool
) -> Iterator[tuple[Job, np.ndarray, np.ndarray | None, "Watched"]]:
    """Each with its samples [n, H, W, C], the kernels found, and what was watched [steps, n] of them."""
    if not jobs:
        return
    settings, batch = task.settings, images.filled(jobs, size)
    key = jax.random.key(settings.seed)
    sigma = task.noise or settings.sigma
    found = jd.restore(
        np.stack([job.y for job in batch]),
        batch[0].camera.operator,
        np.array([job.sigma for job in batch]) if sigma is None else sigma,
        prior=task.denoiser,
        covariance=task.covariance,
        sampler=settings.sampler,
        steps=settings.steps,
        scale=settings.scale,
        key=jax.vmap(jax.random.fold_in, (None, 0))(key, np.array([job.number for job in batch])),
        n=settings.samples,
        batch_size=settings.batch_size,
        progress=progress,
        keep=watch,
        sharding=sharding,
        precision=settings.precision,
    )
    watched = (
        jax.tree.map(lambda a, i=i: np.asarray(a)[:, i], found.kept) for i in range(len(jobs))
    )
    kernels = [None] * len(jobs) if found.kernels is None else np.asarray(found.kernels)
    yield from zip(jobs, np.asarray(found.draws), kernels, watched)


class Watched(NamedTuple):
    """Whether conjugate gradients converged, and the misfit, NaN of samplers that have none."""

    converged: Any
    misfit: Any


def watch(x, info) -> Watched:
    """For `keep=`, which is static: one function, and the program of one call serves the next."""
    return Watched(info.get("cg_converged", True), info.get("misfit", np.nan))


def _not_finite(job: Job, settings: Settings) -> str:
    return (
        f"{job.file}: {settings.sampler} gave samples that are not finite, nothing is written: try "
        "another --sampler, a smaller --scale, or another --model"
    )


def _kept(out: Path, done: int, total: int) -> str:
    if not done:
        return f"no image was finished, the same command starts again ({printable(out)}/)"
    return f"{done} of {total} images are in {printable(out)}/, the same command goes on"


def _results(out: Path, found: Mapping[str, Any]) -> Iterable[Path]:
    """The files that a restoration of those settings has written."""
    for name in found.get("items", []):
        if ".." not in PurePath(name).parts and not PurePath(name).is_absolute():
            for file in FILES:
                yield from (out / name).glob(file)
    if (out / METRICS).exists() and "" not in found.get("items", []):
        yield out / METRICS


def _done(folders: Mapping[str, Path], single: bool) -> dict[str, dict[str, Any]]:
    """The results that are there."""
    found = {n: read_json(f / METRICS) for n, f in folders.items() if (f / METRICS).exists()}
    return {n: next(iter(r["images"].values())) for n, r in found.items()} if single else found


def _described(task: Task) -> dict[str, Any]:
    """The settings as used, and the camera by its content: a file of that name may change."""
    kept = {k: v for k, v in dataclasses.asdict(task.settings).items() if k not in FREE}
    kept["precision"] = None if task.settings.precision is None else str(task.settings.precision)
    return kept | {"camera": fingerprint(task.first.operator)}


def _report(task: Task, results, bad: list[str], seconds: Seconds) -> dict[str, Any]:
    """The content of metrics.json."""
    versions = {"jaxdiff": jd.__version__, "jax": jax.__version__}
    return {
        "settings": dataclasses.asdict(task.settings) | _described(task),
        "versions": versions | {"python": platform.python_version()},
        **seconds.report(),
        "images": results,
        "failed": bad,
    }
