"""One file a method, named as in its paper.

A sampler is a pytree with a `denoiser` and `step(x, c, draws) -> (x, info)`: a pure function of one
sample x [H, W, C], the coefficients `c` of one step (a row of `jd.Steps`) and its `Draws`. A `Restorer`
also has an `operator` and a measurement `y`. All noise moves by `move`.
"""

from jaxdiff.samplers.base import Draws, PosteriorSampler, Restorer, Sampler, ancestral, move
from jaxdiff.samplers.blind import Blind
from jaxdiff.samplers.daps import DAPS
from jaxdiff.samplers.ddim import DDIM
from jaxdiff.samplers.ddnm import DDNM
from jaxdiff.samplers.ddpm import DDPM
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
    "DiffPIR",
    "Draws",
    "FastDIPS",
    "PiGDM",
    "PnPDM",
    "PosteriorSampler",
    "REDDiff",
    "RePaint",
    "Restorer",
    "Sampler",
    "SpectralPosterior",
    "ancestral",
    "move",
]
