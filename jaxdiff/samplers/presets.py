"""The posterior samplers by name, each with what its measurements say it wants."""

from dataclasses import dataclass, field
from typing import Any

from jaxdiff.denoiser import Prior
from jaxdiff.samplers.base import Covariance, Restorer, decodes_linearly
from jaxdiff.samplers.dps import DPS
from jaxdiff.samplers.pigdm import PiGDM
from jaxdiff.samplers.spectral import SpectralPosterior


@dataclass(frozen=True)
class Preset:
    """A sampler, its usual number of steps and guidance scale, and its other options.

    `steps` and `scale` are those of the evaluations in benchmarks/RESULTS.md; `latents`, whether it
    takes a prior of latents, whose decoder is not linear.
    """

    method: Any
    steps: int
    scale: float | None = None
    latents: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def needs_table(self) -> bool:
        """Whether it conditions with a covariance table."""
        return self.method is SpectralPosterior

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
            if scale is not None:
                raise ValueError("scale: the spectral sampler has none to tune: leave it out")
            if covariance is None:
                raise ValueError("covariance: the spectral sampler needs one: jaxdiff calibrate")
            return self.method(denoiser, operator, y, sigma, covariance, **arguments)
        arguments["scale"] = self.scale if scale is None else scale
        return self.method(denoiser, operator, y, sigma=sigma, **arguments)


PRESETS = {
    "spectral": Preset(SpectralPosterior, 10),
    "spectral-jacobian": Preset(SpectralPosterior, 10, options={"jacobian": True}),
    "pigdm-paper": Preset(PiGDM, 20, 1.0, options={"variance": "paper"}),
    "pigdm": Preset(PiGDM, 100, 1.0, latents=True),
    "dps": Preset(DPS, 1000, 1.0, latents=True),
    "dps-adaptive": Preset(DPS, 1000, 100.0, latents=True, options={"step_size": "adaptive"}),
}
NAMES = tuple(PRESETS)


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
