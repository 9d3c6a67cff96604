"""How wrong a denoiser is."""

from jaxdiff.covariance.table import SpectralCovariance

__all__ = ["SpectralCovariance"]
