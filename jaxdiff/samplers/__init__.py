"""One file a method, named as in its paper.

A sampler is a pytree with a `denoiser` and `step(x, c, z) -> (x_prev, info)`: a pure function of
one sample x [H, W, C], the coefficients `c` of one step (a row of `jd.Steps`) and one draw z of
N(0, 1). One that restores also has an `operator` and a measurement `y`.
"""

from jaxdiff.samplers.ddim import DDIM
from jaxdiff.samplers.ddpm import DDPM
from jaxdiff.samplers.dps import DPS
from jaxdiff.samplers.pigdm import PiGDM
from jaxdiff.samplers.spectral import SpectralPosterior

__all__ = ["DDIM", "DDPM", "DPS", "PiGDM", "SpectralPosterior"]
