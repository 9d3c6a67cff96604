"""Bundled checkpoints (folders in diffusers' format) and exact priors."""

from jaxdiff.priors.gaussian import Gaussian
from jaxdiff.priors.mixture import GaussianMixture

__all__ = ["Gaussian", "GaussianMixture"]
