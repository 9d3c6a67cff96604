"""What `jaxdiff restore` does: image by image it reads, degrades where asked, samples and writes."""

import dataclasses
import itertools
import platform
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm.auto import tqdm

import jaxdiff as jd
from jaxdiff import data
from jaxdiff.checkpoints.fingerprint import fingerprint
from jaxdiff.commands import images
from jaxdiff.commands.cameras import Camera, in_grey, of_measurement, of_picture
from jaxdiff.commands.noise_level import deviation, estimate_sigma
from jaxdiff.commands.pictures import FILES, METRICS, Job, restored, score, write
from jaxdiff.commands.recipes import HIDING, NO_PICTURES, NOISES, made
from jaxdiff.noise import Noise
from jaxdiff.priors import of_size
from jaxdiff.restoration import default_sampler
from jaxdiff.samplers.presets import preset
from jaxdiff.util import hosts, interrupts
from jaxdiff.util.files import read_json, write_json
from jaxdiff.util.fingerprint import of_files
from jaxdiff.util.names import folder_names, printable
from jaxdiff.util.platform import evaluation_batch
from jaxdiff.util.runs import SETTINGS, Run
from jaxdiff.util.seconds import Seconds


@dataclasses.dataclass(frozen=True)
class Settings:
    """The command line's choices, as they stand in metrics.json.

    `sigma` is the noise level of the measurements; None has it estimated for each of them, unless
    `noise` says what it is.
    `border` is what a measured blur gathered beyond the picture: "unknown" or "circular".
    """

    operator: str | None
    sigma: float | None
    degrade: bool
    sampler: str | None
    scale: float | None
    steps: int | None
    samples: int
    model: str
    seed: int
    fit: str | None
    batch_size: int | None
    border: str = "unknown"
    noise: str | None = None
    remat: bool = False
    precision: str | None = None
    save_draws: bool = False
    config: str | None = None  # a file, of the model
    class_label: int | None = None


# Of the settings, those that change no result but by rounding: a run may go on with other ones.
FREE = ("model", "config", "batch_size", "remat")


class Task(NamedTuple):
    """What is done to every image: the settings as used, and what they mean."""

    settings: Settings
    denoiser: jd.Denoiser
    covariance: jd.SpectralCovariance | None
    cameras: dict[tuple[int, ...], Camera]  # by the shape of the file
    noise: Noise | None  # None: Gaussian, of the settings' sigma

    def camera(self, shape: tuple[int, ...]) -> Camera:
        """The camera of a file's image [H, W, 1 or C], the same object for the same shape.

        Raises:
            ValueError: for a recipe that does not fit, or channels that the prior does not have.
        """
        if shape not in self.cameras:
            channels = _shape(self.denoiser)[-1]
            camera = self._camera(shape)
            if camera.canvas[-1] != channels and shape[-1] == 1:
                camera = in_grey(self._camera((*shape[:2], channels)))
            if camera.canvas[-1] != channels:
                raise ValueError(
                    f"has {shape[-1]} channels, the prior has {channels}: convert it to "
                    f"{'RGB' if channels == 3 else 'greyscale'} first"
                )
            self.cameras[shape] = camera
        return self.cameras[shape]

    @property
    def first(self) -> Camera:
        """That of the first good image."""
        return next(iter(self.cameras.values()))

    def _camera(self, shape) -> Camera:
        recipe = str(self.settings.operator)
        if self.settings.degrade:
            return of_picture(recipe, shape)
        return of_measurement(recipe, shape, self.settings.border)


class Item(NamedTuple):
    """An image of those to restore: its number, its folder's name in `out`, where it is."""

    number: int
    name: str
    path: Path | None  # None: the bundled portrait
    file: str


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
    task, first = _task(settings, items)  # what a sampler refuses is known before all is written
    if single and first is None:
        _read(task, items[0])  # and why the one image cannot be read
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
                        jobs.append(_read(task, item))
                    except (ValueError, OSError) as e:
                        bad.append(str(e))
                for camera, alike in _by_camera(jobs):
                    if camera.canvas not in compiled:
                        compiled.add(camera.canvas)
                        say(f"compiling for {camera.canvas[0]}×{camera.canvas[1]}…")
                    bar_inside = progress and single
                    for job, samples, cg in _sample(task, alike, size, sharding, bar_inside):
                        converged.append(cg)
                        if not np.isfinite(samples).all():
                            bad.append(_not_finite(job, task.settings))
                            continue
                        done = restored(job, samples)
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


def _task(settings: Settings, items: list[Item]) -> tuple[Task, np.ndarray | None]:
    """The prior, the sampler and the camera that the settings name, and the first good image.

    A sampler that nobody named is spectral where the prior has a table.
    """
    if settings.sampler is not None:
        preset(settings.sampler)
    recipe = settings.operator
    if recipe is None:
        raise ValueError(
            "--kernel or --operator: say how the images were taken, or pass --degrade for clean ones"
        )
    noise = None if settings.noise is None else made("--noise", NOISES, settings.noise)
    estimated = noise is None and settings.sigma is None
    if estimated and settings.degrade:
        raise ValueError("--sigma: auto is for measurements; with --degrade it is a number")
    if estimated and re.search(f"(^|@)({'|'.join(HIDING)}):", recipe):
        raise ValueError("--sigma: cannot be estimated where pixels are missing: name a number")
    if not settings.degrade and (
        no := re.search(f"(^|@)({'|'.join(NO_PICTURES)})(?=[:@]|$)", recipe)
    ):
        raise ValueError(
            f"operator {no[2]}: what it measures is no picture: jd.restore takes it as an array, and "
            "--degrade makes it of clean images"
        )
    if settings.sigma is not None and settings.sigma > 0.5:
        warnings.warn(
            f"--sigma {settings.sigma:g} is more noise than image: it is a standard deviation for "
            "images in [0, 1], as 10/255",
            stacklevel=2,
        )
    if settings.fit == "resize" and not settings.degrade and re.search("(^|@)blur:", recipe):
        raise ValueError(
            "--fit: a measurement is not resized where the kernel is given, which would be of another "
            "scale: it is restored at its own size, or cropped"
        )
    denoiser = jd.prior(
        settings.model,
        config=settings.config,
        class_labels=settings.class_label,
        remat=settings.remat,
    )
    name, covariance = settings.sampler, None
    if name is None or preset(name).needs_table:
        try:
            covariance = jd.SpectralCovariance.load(settings.model)
        except FileNotFoundError:
            if name is not None:
                raise
    task = Task(settings, denoiser, covariance, {}, noise)
    image = _first(task, items)
    camera = task.camera(_shape(denoiser) if image is None else image.shape)
    sigma = noise or (0.1 if settings.sigma is None else settings.sigma)
    name = name or default_sampler(denoiser, camera.operator, sigma, covariance)
    count = settings.steps or preset(name).steps
    denoiser.schedule.steps(count)  # which the schedule may not have
    used = dataclasses.replace(settings, sampler=name, steps=count)
    y = np.asarray(camera.operator(np.zeros(camera.canvas, np.float32)))
    prior = of_size(denoiser, camera.canvas[:2])
    preset(name).sampler(prior, camera.operator, y, sigma, settings.scale, covariance)
    return task._replace(settings=used), image


def _shape(denoiser: jd.Denoiser) -> tuple[int, ...]:
    """[H, W, C] of the images that the prior was trained on; of 64² where it does not say."""
    return denoiser.image_shape or (64, 64, denoiser.network.config.in_channels)


def _first(task: Task, items: list[Item]) -> np.ndarray | None:
    """The first image that can be read, of whose size the camera is."""
    for item in items:
        try:
            return _picture(task, item).image
        except (ValueError, OSError):
            pass
    return None


def _picture(task: Task, item: Item) -> data.Picture:
    """An image [H, W, 1 or C] at its own size, or fitted the way that was chosen."""
    shape, fit = _shape(task.denoiser), task.settings.fit
    if item.path is None:
        if shape[2] != 3:
            raise ValueError("the bundled portrait is RGB: name an image of your own")
        return data.Picture(data.example(shape[0]))
    if fit is not None and not task.settings.degrade:
        camera = of_picture(str(task.settings.operator), shape).operator
        shape = jax.eval_shape(camera, jax.ShapeDtypeStruct(shape, np.float32)).shape
    return images.picture(item.path, shape[:2], fit)


def _read(task: Task, item: Item) -> Job:
    """A measurement, or a clean image that becomes one."""
    settings, picture = task.settings, _picture(task, item)
    image = picture.image
    try:
        camera = task.camera(image.shape)
    except ValueError as e:
        raise ValueError(f"{item.file}: {e}") from e
    operator, sigma = camera.operator, settings.sigma
    if settings.degrade:
        y = np.asarray(operator(np.broadcast_to(image, camera.canvas)))
        y = np.asarray(operator.project(_noisy(task, y, item.number)))
    else:
        y = np.asarray(operator.project(image))
    if task.noise is not None:
        sigma = deviation(task.noise, y)
    elif sigma is None:
        sigma = estimate_sigma(y)
    truth = image if settings.degrade else None
    return Job(item.number, item.name, item.file, y, sigma, truth, camera, picture)


def _noisy(task: Task, y: np.ndarray, number: int) -> np.ndarray:
    """With the noise of an image of that number."""
    seed = [task.settings.seed, number]
    if task.noise is None:
        noise = np.random.default_rng(seed).standard_normal(y.shape)
        return (y + float(task.settings.sigma or 0) * noise).astype(np.float32)
    key = jax.random.fold_in(jax.random.key(seed[0]), number)
    return np.asarray(task.noise.draw(key, y))


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
) -> Iterator[tuple[Job, np.ndarray, float]]:
    """Each with its samples [n, H, W, C], and in which share of steps CG converged."""
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
        keep=_converged,
        sharding=sharding,
        precision=settings.precision,
    )
    shares = np.mean(found.kept, axis=(0, 2))
    yield from zip(jobs, np.asarray(found.draws), shares.tolist())


def _converged(x, info):
    """For `keep=`, which is static: one function, and the program of one call serves the next."""
    return info.get("cg_converged", True)


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
    used = dataclasses.asdict(task.settings) | _described(task)
    if (kernel := getattr(task.first.operator, "kernel", None)) is not None:
        used["kernel_sum"] = float(np.sum(kernel))
    versions = {"jaxdiff": jd.__version__, "jax": jax.__version__}
    return {
        "settings": used,
        "versions": versions | {"python": platform.python_version()},
        **seconds.report(),
        "images": results,
        "failed": bad,
    }
