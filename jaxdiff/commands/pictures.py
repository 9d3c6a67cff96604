"""The files of one restored image, and its scores."""

import shutil
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxdiff import data, metrics, plot
from jaxdiff.commands.cameras import Camera
from jaxdiff.operators import Linear
from jaxdiff.operators.unknown_blur import with_kernel
from jaxdiff.util.files import publish, temporary_folder, write_json

METRICS = "metrics.json"
FILES = (  # every name that `write` may write
    METRICS, "degraded.png", "restored.png", "restored-16bit.png", "deviation-16bit.png",
    "comparison.png", "draw-*.png", "kernel.png", "kernel.npy", "kernel-deviation.npy",
)  # fmt: skip


class Job(NamedTuple):
    """One image: what was measured with what noise, and the truth where it is known."""

    number: int
    name: str
    file: str
    y: np.ndarray
    sigma: float
    truth: np.ndarray | None
    camera: Camera
    picture: data.Picture  # as it was read


class Restored(NamedTuple):
    """Samples [n, H, W, C] of one picture, and the classical restoration beside them."""

    job: Job
    samples: np.ndarray
    wiener: np.ndarray | None  # of a linear operator
    residual_rms: float  # of the samples' mean, on the canvas
    kernels: np.ndarray | None  # [n, size, size], those found for an unknown one
    misfit: float  # the measurement's, to what the prior's table expects; NaN of a sampler that has none

    @property
    def mean(self) -> np.ndarray:
        """What is taken for the restored image."""
        return self.samples.mean(0)


def restored(job: Job, samples: np.ndarray, kernels: np.ndarray | None, misfit: float) -> Restored:
    """What is shown of samples of the canvas, with the Wiener filter's image of the measurement."""
    operator, canvas, shown = job.camera
    if kernels is not None:
        operator = with_kernel(operator, kernels.mean(0), canvas[:2])
    residual = np.asarray(operator(samples.mean(0))) - job.y
    filtered = None
    if isinstance(operator, Linear):
        filtered = np.asarray(shown(metrics.wiener(job.y, operator, job.sigma, canvas)))
    rms = float(np.sqrt(np.mean(residual**2)))
    pictures = np.stack([shown(sample) for sample in samples])
    return Restored(job, pictures, filtered, rms, kernels, misfit)


def score(done: Restored) -> dict[str, Any]:
    """The residual of the samples' mean; where the truth is known, PSNR (dB) and calibration."""
    (job, samples, wiener, residual, _, misfit), mean = done, done.mean
    result: dict[str, Any] = {
        "file": job.file,
        "sigma": job.sigma,
        "residual_rms": residual,
    }
    if np.isfinite(misfit):
        result["misfit"] = misfit
    if job.truth is None:
        return result
    if job.y.shape == job.truth.shape:
        result["psnr_degraded"] = metrics.psnr(job.y, job.truth)
    if wiener is not None:
        result["psnr_wiener"] = metrics.psnr(wiener, job.truth)
    result |= {
        "psnr_samples": [metrics.psnr(s, job.truth) for s in samples],
        "psnr_restored": metrics.psnr(mean, job.truth),
    }
    if len(samples) > 1:
        result |= metrics.calibration(samples[None], job.truth[None])
    return result


def write(
    root: Path, folder: Path, done: Restored, result: dict[str, Any] | None, draws: bool
) -> None:
    """All files of one image into its folder in `root`, which has all of them or none.

    Args:
        result: its scores, the last file; None where the caller writes that.
        draws: the single samples, too.
    """
    temporary = temporary_folder(root)
    try:
        job, samples, wiener, _, kernels, _ = done
        measured = _shown(job)
        data.write_image(temporary / "degraded.png", measured)
        _, alpha, profile = job.picture
        if alpha is not None and alpha.shape[:2] != done.mean.shape[:2]:
            alpha = None  # of another size, as after ×4
        data.write_image(temporary / "restored.png", done.mean, alpha, profile)
        write_png16(temporary / "restored-16bit.png", done.mean)
        if len(samples) > 1:
            write_png16(temporary / "deviation-16bit.png", samples.std(0, ddof=1))
        for number, sample in enumerate(samples if draws else [], 1):
            data.write_image(temporary / f"draw-{number}.png", sample, alpha, profile)
        if kernels is not None:
            _write_kernels(temporary, kernels)
        before = [plot.degraded(job.camera.operator, measured, job.sigma)]
        if wiener is not None:
            before.append(("Wiener filter", wiener))
        figure = plot.posterior(samples, job.truth, before=before)
        figure.savefig(temporary / "comparison.png")
        if result is not None:
            write_json(temporary / METRICS, result)
        publish(temporary, folder, METRICS)
    except OSError as e:
        raise OSError(e.errno, e.strerror or str(e), str(folder)) from e
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_kernels(folder: Path, kernels: np.ndarray) -> None:
    """The mean of kernels [n, size, size], also as a picture whose white is its maximum, and their deviation."""
    mean = kernels.mean(0)
    np.save(folder / "kernel.npy", mean)
    if len(kernels) > 1:
        np.save(folder / "kernel-deviation.npy", kernels.std(0, ddof=1))
    data.write_image(folder / "kernel.png", (mean / mean.max())[..., None])


def _shown(job: Job) -> np.ndarray:
    """A measurement as a picture: what is none, of other channels or one column, as Aᵀ sees it."""
    if job.y.shape[-1] in (1, 3) and job.y.shape[1] > 1:
        return job.y
    return np.asarray(job.camera.operator.linear.adjoint(job.y))


def write_png16(path: Path, image: np.ndarray) -> None:
    """An image [H, W, 1] or [H, W, 3] in [0, 1] as a PNG of 16 bits a channel: 65535 is 1.

    Pillow writes such colours in no format.
    """
    height, width, channels = image.shape
    pixels = np.round(np.clip(image, 0, 1) * 65535).astype(">u2").reshape(height, -1)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)  # each with filter 0: as it is

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    colour = {1: 0, 3: 2}[channels]  # grey, RGB
    header = struct.pack(">2I5B", width, height, 16, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
