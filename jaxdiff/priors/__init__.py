"""Bundled and published checkpoints, and exact priors."""

from jaxdiff.priors.gaussian import Gaussian
from jaxdiff.priors.latent import LatentDecoder
from jaxdiff.priors.loading import prior
from jaxdiff.priors.mixture import GaussianMixture

__all__ = ["Gaussian", "GaussianMixture", "LatentDecoder", "prior"]
