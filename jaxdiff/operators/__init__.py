"""The physics: maps from an image x [..., H, W, C] in [0, 1] to a measurement.

An operator is a pytree, called as `A(x)`; a linear one has `adjoint(y)`, `pinv(y)` and
`solve(residual, r2, s2)` = Aᵀ(r²AAᵀ + s²I)⁻¹ residual besides, in closed form where there is one.
`A @ B` is A after B. `Stack` gives each measurement of a batch an operator of its own.
"""

from jaxdiff.operators.base import (
    Affine,
    Compose,
    Function,
    Isometry,
    Linear,
    Operator,
    Scale,
    as_operator,
)
from jaxdiff.operators.blur import Blur
from jaxdiff.operators.compressed_sensing import CompressedSensing
from jaxdiff.operators.crop import Crop
from jaxdiff.operators.demosaic import Demosaic
from jaxdiff.operators.diagonal import Diagonal
from jaxdiff.operators.downsample import Downsample
from jaxdiff.operators.fourier import Fourier
from jaxdiff.operators.grey import Grey
from jaxdiff.operators.inpaint import Inpaint, Outpaint
from jaxdiff.operators.jpeg import JPEG
from jaxdiff.operators.mask import Mask
from jaxdiff.operators.phase_retrieval import PhaseRetrieval
from jaxdiff.operators.radon import Radon
from jaxdiff.operators.response import HDR, Gamma, Saturate
from jaxdiff.operators.space_varying_blur import SpaceVaryingBlur
from jaxdiff.operators.stack import Stack, as_operators
from jaxdiff.operators.unknown_blur import UnknownBlur

__all__ = [
    "HDR",
    "JPEG",
    "Affine",
    "Blur",
    "Compose",
    "CompressedSensing",
    "Crop",
    "Demosaic",
    "Diagonal",
    "Downsample",
    "Fourier",
    "Function",
    "Gamma",
    "Grey",
    "Inpaint",
    "Isometry",
    "Linear",
    "Mask",
    "Operator",
    "Outpaint",
    "PhaseRetrieval",
    "Radon",
    "Saturate",
    "Scale",
    "SpaceVaryingBlur",
    "Stack",
    "UnknownBlur",
    "as_operator",
    "as_operators",
]
