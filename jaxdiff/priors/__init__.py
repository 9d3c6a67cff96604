"""Bundled and published checkpoints, exact priors, and priors of other sizes."""

from jaxdiff.priors.gaussian import Gaussian
from jaxdiff.priors.latent import LatentDecoder
from jaxdiff.priors.loading import prior
from jaxdiff.priors.mixture import GaussianMixture
from jaxdiff.priors.tiled import Padded, Tiled, of_size

__all__ = [
    "Gaussian",
    "GaussianMixture",
    "LatentDecoder",
    "Padded",
    "Tiled",
    "of_size",
    "prior",
]
