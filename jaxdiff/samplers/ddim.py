"""DDIM: from deterministic (η = 0) to ancestral (η = 1) sampling."""

import jax.numpy as jnp

from jaxdiff.denoiser import Prior, as_prior
from jaxdiff.samplers.base import Draws, Sampler, as_scale
from jaxdiff.schedules import Steps
from jaxdiff.util.arrays import Number
from jaxdiff.util.pytree import field, pytree


@pytree
class DDIM(Sampler):
    """Unconditional samples by denoising diffusion implicit models.

    x_s = α_s·x̂₀ + √(σ_s² − η²σ_s²τ)·ε̂ + ησ_s√τ·z, τ the share of new noise of DDPM's step. That is
    `move` with the share η²τ, but that ε̂ is the network's own and not rederived from the clipped x̂₀
    (diffusers' default too).

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

    denoiser: Prior = field(converter=as_prior)
    eta: Number = field(default=0.0, converter=as_scale("eta"))

    def step(self, x, c: Steps, draws: Draws):
        p = self.denoiser.predict(x, c.now)
        deviation = jnp.asarray(self.eta, x.dtype) * c.noise_coef
        kept = jnp.sqrt(jnp.maximum(c.next.sigma**2 - deviation**2, 0))
        x = c.next.alpha * p.x0_hat + kept * p.eps + deviation * draws.z
        return x, {"t": c.t, "x0_hat": p.x0_hat}
