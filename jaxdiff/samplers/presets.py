"""The posterior samplers by name, each with what its measurements say it wants."""

from dataclasses import dataclass, field
from typing import Any

from jaxdiff.denoiser import Prior
from jaxdiff.samplers.base import Covariance, Restorer, decodes_linearly
from jaxdiff.samplers.blind import Blind
from jaxdiff.samplers.daps import DAPS
from jaxdiff.samplers.ddnm import DDNM
from jaxdiff.samplers.ddrm import DDRM
from jaxdiff.samplers.diffpir import DiffPIR
from jaxdiff.samplers.dps import DPS
from jaxdiff.samplers.fastdips import FastDIPS
from jaxdiff.samplers.mmps import MMPS
from jaxdiff.samplers.pigdm import PiGDM
from jaxdiff.samplers.pnpdm import PnPDM
from jaxdiff.samplers.reddiff import REDDiff
from jaxdiff.samplers.repaint import RePaint
from jaxdiff.samplers.sitcom import SITCOM
from jaxdiff.samplers.spectral import SpectralPosterior
from jaxdiff.samplers.tds import TDS
from jaxdiff.samplers.tmpd import TMPD


@dataclass(frozen=True)
class Preset:
    """A sampler, its usual number of steps and guidance scale, and its other options.

    `steps` and `scale` are those of the evaluations in benchmarks/RESULTS.md, and of the methods from
    "diffpir" on those of their papers.
    """

    method: Any
    steps: int
    scale: float | None = None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def needs_table(self) -> bool:
        """Whether it conditions with a covariance table."""
        return issubclass(self.method, SpectralPosterior)

    @property
    def latents(self) -> bool:
        """Whether it takes a prior of latents, whose decoder is not linear."""
        course = self.method is PiGDM and not self.options
        linear = self.method.requires_linear or issubclass(self.method, RePaint | SpectralPosterior)
        return course or not linear

    def suits(self, denoiser: Prior, covariance: Covariance | None) -> bool:
        """Whether a prior has what it takes."""
        decodes = self.latents or decodes_linearly(denoiser)
        return decodes and (covariance is not None or not self.needs_table)

    def sampler(self, denoiser, operator, y, sigma, scale=None, covariance=None) -> Restorer:
        """The sampler of a measurement, with its usual guidance scale unless one is given.

        Raises:
            ValueError: for a scale or a covariance that it lacks, and what the sampler raises.
        """
        arguments = dict(self.options)
        if self.needs_table:
            if covariance is None:
                raise ValueError("covariance: the spectral sampler needs one: jaxdiff calibrate")
            arguments["covariance"] = covariance
        if self.scale is not None:
            arguments["scale"] = self.scale if scale is None else scale
        elif scale is not None:
            raise ValueError(f"scale: {self.method.__name__} has none to tune: leave it out")
        return self.method(denoiser, operator, y, sigma=sigma, **arguments)


PRESETS = {
    "spectral": Preset(SpectralPosterior, 10),
    "spectral-jacobian": Preset(SpectralPosterior, 10, options={"jacobian": True}),
    "pigdm-paper": Preset(PiGDM, 20, 1.0, {"variance": "paper"}),
    "pigdm": Preset(PiGDM, 100, 1.0),
    "dps": Preset(DPS, 1000, 1.0),
    "dps-adaptive": Preset(DPS, 1000, 100.0, {"step_size": "adaptive"}),
    # Of the λ that the paper finds best, from 3 to 25 with its units, one that suits motion blur; of the ζ that
    # the official code takes, from 0.1 to 1, one that leaves the draws their spread.
    "diffpir": Preset(DiffPIR, 100, options={"lambda_": 4.0, "zeta": 0.3}),
    "ddrm": Preset(DDRM, 20),
    "ddnm": Preset(DDNM, 100),
    "mmps": Preset(MMPS, 100),
    "daps": Preset(DAPS, 200),
    "pnpdm": Preset(PnPDM, 100),
    "tmpd": Preset(TMPD, 100),
    "reddiff": Preset(REDDiff, 100),
    "sitcom": Preset(SITCOM, 20),
    "fastdips": Preset(FastDIPS, 75),
    "repaint": Preset(RePaint, 250),
    "tds": Preset(TDS, 100),
    "blind": Preset(Blind, 124),
}
NAMES = tuple(PRESETS)
# What `jaxdiff evaluate` compares where nobody names others: the course's methods, and the spectral ones.
COURSE = ("spectral", "spectral-jacobian", "pigdm-paper", "pigdm", "dps", "dps-adaptive")


def preset(name: str) -> Preset:
    """The preset of a name.

    Raises:
        ValueError: for a name that is not in `PRESETS`.

    Example:
        >>> preset("dps").steps
        1000
        >>> preset("dsp")
        Traceback (most recent call last):
        ValueError: sampler: expected one of spectral, spectral-jacobian, ..., got 'dsp'
    """
    if name not in PRESETS:
        raise ValueError(f"sampler: expected one of {', '.join(PRESETS)}, got {name!r}")
    return PRESETS[name]
