"""Bundled checkpoints (folders in diffusers' format), exact priors, and priors of other sizes."""

from jaxdiff.priors.gaussian import Gaussian
from jaxdiff.priors.mixture import GaussianMixture
from jaxdiff.priors.tiled import Padded, Tiled, of_size

__all__ = ["Gaussian", "GaussianMixture", "Padded", "Tiled", "of_size"]
