"""What is done to every image that `jaxdiff restore` is given: read, degraded where asked."""

import dataclasses
import warnings
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

import jaxdiff as jd
from jaxdiff import data
from jaxdiff.commands import images
from jaxdiff.commands.cameras import Camera, in_grey, names, of_measurement, of_picture
from jaxdiff.commands.noise_level import deviation, estimate_sigma
from jaxdiff.commands.pictures import Job
from jaxdiff.commands.recipes import BLURRING, HIDING, NO_PICTURES, NOISES, made
from jaxdiff.noise import Noise
from jaxdiff.priors import of_size
from jaxdiff.restoration import default_sampler
from jaxdiff.samplers.presets import preset


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


def task_of(settings: Settings, items: list[Item]) -> tuple[Task, np.ndarray | None]:
    """The prior, the sampler and the camera that the settings name, and the first good image.

    A sampler that nobody named is spectral where the prior has a table.
    """
    _check(settings)
    noise = None if settings.noise is None else made("--noise", NOISES, settings.noise)
    denoiser = jd.prior(
        settings.model,
        config=settings.config,
        class_labels=settings.class_label,
        remat=settings.remat,
    )
    name, covariance = settings.sampler, None
    if name is None or preset(name).needs_table:
        table = jd.SpectralCovariance
        covariance = table.find(settings.model) if name is None else table.load(settings.model)
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


def _check(settings: Settings) -> None:
    """Whether the settings go together."""
    if settings.sampler is not None:
        preset(settings.sampler)
    if settings.operator is None:
        raise ValueError(
            "--kernel or --operator: say how the images were taken, or pass --degrade for clean ones"
        )
    taken = set(names(settings.operator))
    estimated = settings.noise is None and settings.sigma is None
    if settings.degrade and "unknown" in taken:
        raise ValueError("operator unknown: is of measurements; with --degrade name the kernel")
    if estimated and settings.degrade:
        raise ValueError("--sigma: auto is for measurements; with --degrade it is a number")
    if estimated and taken & HIDING:
        raise ValueError("--sigma: cannot be estimated where pixels are missing: name a number")
    if not settings.degrade and (no := taken & NO_PICTURES):
        raise ValueError(
            f"operator {no.pop()}: what it measures is no picture: jd.restore takes it as an array, "
            "and --degrade makes it of clean images"
        )
    if settings.sigma is not None and settings.sigma > 0.5:
        warnings.warn(
            f"--sigma {settings.sigma:g} is more noise than image: it is a standard deviation for "
            "images in [0, 1], as 10/255",
            stacklevel=3,
        )
    if settings.fit == "resize" and not settings.degrade and taken & BLURRING:
        raise ValueError(
            "--fit: a measurement is not resized where the blur is given, which would be of another "
            "scale: it is restored at its own size, or cropped"
        )


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


def read(task: Task, item: Item) -> Job:
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
