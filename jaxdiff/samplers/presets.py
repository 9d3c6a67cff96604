"""The restoring samplers by the names that the command line and the evaluation use."""

from jaxdiff.samplers.dps import DPS
from jaxdiff.samplers.pigdm import PiGDM
from jaxdiff.samplers.spectral import SpectralPosterior

SPECTRAL = ("spectral", "spectral-jacobian")  # which need a table
NAMES = (*SPECTRAL, "pigdm-paper", "pigdm", "dps", "dps-adaptive")


def named(name: str, denoiser, operator, y, sigma, scale: float | None = None, covariance=None):
    """The sampler of that name, with its usual guidance scale unless one is given.

    Raises:
        ValueError: for a name that is not in `NAMES`, one of `SPECTRAL` without a covariance or with
            a scale, which they have not; and what the sampler raises.

    Example:
        >>> import numpy as np, jaxdiff as jd
        >>> blur = jd.operators.Blur(np.ones((3, 3)) / 9, (64, 64))
        >>> denoiser = jd.Denoiser(*jd.load("faces64"))
        >>> named("dps-adaptive", denoiser, blur, np.zeros((64, 64, 3)), 0.04).scale
        array(100.)
    """
    check_name(name)
    usual = 1.0 if scale is None else scale
    match name:
        case "spectral" | "spectral-jacobian":
            if scale is not None:
                raise ValueError(f"scale: {name} has none to tune: leave it out")
            if covariance is None:
                raise ValueError(f"covariance: {name} needs one: jaxdiff calibrate")
            jacobian = name == "spectral-jacobian"
            return SpectralPosterior(denoiser, operator, y, sigma, covariance, jacobian=jacobian)
        case "pigdm":
            return PiGDM(denoiser, operator, y, sigma, usual)
        case "pigdm-paper":
            return PiGDM(denoiser, operator, y, sigma, usual, "paper")
        case "dps":
            return DPS(denoiser, operator, y, usual)
        case _:
            return DPS(denoiser, operator, y, 100.0 if scale is None else scale, "adaptive")


def check_name(name: str) -> None:
    """Raises ValueError for a name that is not in `NAMES`."""
    if name not in NAMES:
        raise ValueError(f"sampler: expected one of {', '.join(NAMES)}, got {name!r}")
