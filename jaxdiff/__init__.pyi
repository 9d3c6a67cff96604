from . import data, metrics, noise, operators, plot, priors, samplers, schedules
from .checkpoints.diffusers import load, save
from .checkpoints.hub import push
from .covariance import SpectralCovariance
from .denoiser import Denoiser, Prediction, Prior
from .nn.config import UNet2DConfig
from .nn.unet import UNet2D
from .observation import Observation
from .priors import prior
from .restoration import Restoration, restore
from .samplers import (
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
    Blind,
    DiffPIR,
    FastDIPS,
    PiGDM,
    PnPDM,
    REDDiff,
    RePaint,
    SpectralPosterior,
)
from .sampling import sample
from .schedules import Level, Schedule, ScheduleConfig, Steps
from .util.pytree import pytree, static
from .wiener_filter import wiener

__version__: str

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
    "Blind",
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
    "prior",
    "priors",
    "push",
    "pytree",
    "restore",
    "sample",
    "samplers",
    "save",
    "schedules",
    "static",
    "wiener",
]
