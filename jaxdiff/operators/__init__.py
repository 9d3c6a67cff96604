"""The physics: maps from an image x [..., H, W, C] in [0, 1] to a measurement.

An operator is a pytree, called as `A(x)`; a linear one has `adjoint(y)`, `pinv(y)` and
`solve(residual, r2, s2)` = Aᵀ(r²AAᵀ + s²I)⁻¹ residual besides, in closed form where there is one.
`A @ B` is A after B. `Stack` gives each measurement of a batch an operator of its own.
"""

from jaxdiff.operators.base import Affine, Compose, Function, Linear, Operator, Scale, as_operator
from jaxdiff.operators.blur import Blur
from jaxdiff.operators.crop import Crop
from jaxdiff.operators.diagonal import Diagonal
from jaxdiff.operators.downsample import Downsample
from jaxdiff.operators.grey import Grey
from jaxdiff.operators.mask import Mask
from jaxdiff.operators.stack import Stack, as_operators

__all__ = [
    "Affine",
    "Blur",
    "Compose",
    "Crop",
    "Diagonal",
    "Downsample",
    "Function",
    "Grey",
    "Linear",
    "Mask",
    "Operator",
    "Scale",
    "Stack",
    "as_operator",
    "as_operators",
]
