"""Restore images with a diffusion prior, in JAX.

>>> import jax, jaxdiff as jd
>>> unet, schedule = jd.load("faces64")
>>> denoiser = jd.Denoiser(unet, schedule)
>>> faces = jd.sample(jd.DDPM(denoiser), schedule.steps(2), key=jax.random.key(0), n=4)
>>> faces.shape
(4, 64, 64, 3)
"""

from typing import TYPE_CHECKING

from jaxdiff import data, metrics, noise, operators, priors, samplers, schedules
from jaxdiff.checkpoints.diffusers import load, save
from jaxdiff.covariance import SpectralCovariance
from jaxdiff.denoiser import Denoiser, Prediction, Prior
from jaxdiff.nn.config import UNet2DConfig
from jaxdiff.nn.unet import UNet2D
from jaxdiff.observation import Observation
from jaxdiff.restoration import Restoration, restore
from jaxdiff.samplers import (
    DAPS,
    DDIM,
    DDNM,
    DDPM,
    DDRM,
    DPS,
    MMPS,
    SITCOM,
    TDS,
    TMPD,
    DiffPIR,
    FastDIPS,
    PiGDM,
    PnPDM,
    REDDiff,
    RePaint,
    SpectralPosterior,
)
from jaxdiff.sampling import sample
from jaxdiff.schedules import Level, Schedule, ScheduleConfig, Steps
from jaxdiff.util import moved
from jaxdiff.util.pytree import pytree, static
from jaxdiff.wiener import wiener

if TYPE_CHECKING:
    from jaxdiff import plot

moved.install()

__version__ = "0.2.0.dev0"

__all__ = [
    "DAPS",
    "DDIM",
    "DDNM",
    "DDPM",
    "DDRM",
    "DPS",
    "MMPS",
    "SITCOM",
    "TDS",
    "TMPD",
    "Denoiser",
    "DiffPIR",
    "FastDIPS",
    "Level",
    "Observation",
    "PiGDM",
    "PnPDM",
    "Prediction",
    "Prior",
    "REDDiff",
    "RePaint",
    "Restoration",
    "Schedule",
    "ScheduleConfig",
    "SpectralCovariance",
    "SpectralPosterior",
    "Steps",
    "UNet2D",
    "UNet2DConfig",
    "data",
    "load",
    "metrics",
    "noise",
    "operators",
    "plot",
    "priors",
    "pytree",
    "restore",
    "sample",
    "samplers",
    "save",
    "schedules",
    "static",
    "wiener",
]


def __getattr__(name: str):
    """`jd.plot`, which takes a second to import, at its first use."""
    if name == "plot":
        import importlib

        return importlib.import_module("jaxdiff.plot")
    raise AttributeError(f"module 'jaxdiff' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
