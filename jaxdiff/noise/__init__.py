"""The noise of a measurement: p(y | mean), mean = A(x)."""

from jaxdiff.noise.base import Noise
from jaxdiff.noise.gaussian import Gaussian, as_noise

__all__ = ["Gaussian", "Noise", "as_noise"]
