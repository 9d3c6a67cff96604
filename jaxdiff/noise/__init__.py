"""The noise of a measurement: p(y | mean), mean = A(x)."""

from jaxdiff.noise.base import Noise
from jaxdiff.noise.gaussian import Gaussian, as_noise
from jaxdiff.noise.laplace import Laplace
from jaxdiff.noise.poisson import Poisson
from jaxdiff.noise.poisson_gaussian import PoissonGaussian
from jaxdiff.noise.quantised import Quantised

__all__ = [
    "Gaussian",
    "Laplace",
    "Noise",
    "Poisson",
    "PoissonGaussian",
    "Quantised",
    "as_noise",
]
