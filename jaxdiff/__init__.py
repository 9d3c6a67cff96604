"""Restore images with a diffusion prior, in JAX.

>>> import jax, jaxdiff as jd
>>> unet, schedule = jd.load("faces64")
>>> denoiser = jd.Denoiser(unet, schedule)
>>> faces = jd.sample(jd.DDPM(denoiser), schedule.steps(2), key=jax.random.key(0), n=4)
>>> faces.shape
(4, 64, 64, 3)
"""

from jaxdiff import data, metrics, operators, priors
from jaxdiff.checkpoints.diffusers import load, save
from jaxdiff.covariance.table import SpectralCovariance
from jaxdiff.denoiser import Denoiser, Prediction
from jaxdiff.nn.config import UNet2DConfig
from jaxdiff.nn.unet import UNet2D
from jaxdiff.samplers import DDIM, DDPM, DPS, PiGDM, SpectralPosterior
from jaxdiff.sampling import sample
from jaxdiff.schedules.ddpm import Schedule, ScheduleConfig, Steps

__version__ = "0.1.0"

__all__ = [
    "DDIM",
    "DDPM",
    "DPS",
    "Denoiser",
    "PiGDM",
    "Prediction",
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
    "operators",
    "priors",
    "sample",
    "save",
]
