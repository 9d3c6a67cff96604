"""The physics: linear maps from an image x [..., H, W, C] in [0, 1] to a measurement.

An operator is a pytree with a `shape` (H, W), called as `A(x)`, with `adjoint(y)`, `pinv(y)` and
`solve(residual, r2, s2)` = Aᵀ(r²AAᵀ + s²I)⁻¹ residual. `Stack` gives each measurement of a batch
an operator of its own.
"""

from jaxdiff.operators.blur import Blur
from jaxdiff.operators.stack import Stack

__all__ = ["Blur", "Stack"]
