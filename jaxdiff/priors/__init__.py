"""Bundled checkpoints (folders in diffusers' format) and exact priors."""

from jaxdiff.priors.gaussian import Gaussian

__all__ = ["Gaussian"]
