"""DDIM: from deterministic (η = 0) to ancestral (η = 1) sampling."""

from typing import Any

import jax.numpy as jnp

from jaxdiff.checks import nonnegative
from jaxdiff.denoiser import predict
from jaxdiff.schedules.ddpm import Steps
from jaxdiff.util.pytree import pytree


@pytree
class DDIM:
    """Unconditional samples by denoising diffusion implicit models.

    x_{t−1} = √ᾱ_prev·x̂₀ + √(1−ᾱ_prev−σ²)·ε̂ + σ·z, σ² = η²·(1−ᾱ_prev)/(1−ᾱ_t)·β. ε̂ is the
    network's own, not rederived from the clipped x̂₀ (diffusers' default too).

    Args:
        eta: η ≥ 0; 0 is deterministic given x_T.

    Raises:
        ValueError: for an η that is negative or not finite.

    Source: Song et al. 2020 (arXiv 2010.02502), equations 12 and 16.

    Example:
        >>> import jax, jaxdiff as jd
        >>> unet, schedule = jd.load("faces64")
        >>> sampler = DDIM(jd.Denoiser(unet, schedule))
        >>> jd.sample(sampler, schedule.steps(2), key=jax.random.key(0), n=1).shape
        (1, 64, 64, 3)
    """

    denoiser: Any
    eta: Any = 0.0

    def __post_init__(self):
        object.__setattr__(self, "eta", nonnegative("eta", self.eta))

    def step(self, x, c: Steps, z):
        p = predict(self.denoiser, x, c)
        a_prev = c.alphas_cumprod_prev
        variance = (1 - a_prev) / (1 - c.alphas_cumprod) * c.betas
        sigma = jnp.asarray(self.eta, x.dtype) * jnp.sqrt(variance)
        direction = jnp.sqrt(jnp.maximum(1 - a_prev - sigma**2, 0)) * p.eps
        x = jnp.sqrt(a_prev) * p.x0_hat + direction + sigma * z
        return x, {"t": c.t, "x0_hat": p.x0_hat}
