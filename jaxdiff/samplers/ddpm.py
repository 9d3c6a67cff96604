"""DDPM: ancestral sampling."""

import jax
import jax.numpy as jnp

from jaxdiff.denoiser import Prior, as_prior
from jaxdiff.linalg import small_matrices
from jaxdiff.linalg.fields import filtered
from jaxdiff.samplers.base import Covariance, Draws, Sampler, ancestral, move
from jaxdiff.schedules import Steps
from jaxdiff.util.pytree import field, pytree


@pytree
class DDPM(Sampler):
    """Unconditional samples by ancestral sampling.

    x_{t−1} = √ᾱ_prev·β/(1−ᾱ_t)·x̂₀ + √α·(1−ᾱ_prev)/(1−ᾱ_t)·x_t + σ_t·z, with σ_t by the
    schedule's variance type and 0 at the last step; under other schedules the same q(x_s | x_t, x̂₀),
    `move`. One network evaluation a step.

    With a `covariance` the x₀ of that transition is a draw of N(x̂₀, Σ) and not its mean, Σ the
    denoiser's measured error: on a Gaussian prior the samples then have the prior's spread after a
    few steps, where plain DDPM's are too smooth; on a network's they look grainy.

    Args:
        denoiser: a `Denoiser` or its stand-in.
        covariance: such as `SpectralCovariance.load("faces64")`.

    Raises:
        ValueError: for a covariance of other channels or another schedule.

    Source: Ho et al. 2020 (arXiv 2006.11239), equations 6 and 7, x̂₀ clipped before the mean as
    in diffusers' DDPMScheduler.

    Example:
        >>> import jax, jaxdiff as jd
        >>> unet, schedule = jd.load("faces64")
        >>> sampler = DDPM(jd.Denoiser(unet, schedule))
        >>> jd.sample(sampler, schedule.steps(2), key=jax.random.key(0), n=1).shape
        (1, 64, 64, 3)
    """

    denoiser: Prior = field(converter=as_prior)
    covariance: Covariance | None = None

    def __post_init__(self):
        if self.covariance is not None:
            self.covariance.check(self.denoiser)

    def step(self, x, c: Steps, draws: Draws):
        p = self.denoiser.predict(x, c.now)
        info = {"t": c.t, "x0_hat": p.x0_hat}
        if self.covariance is None:
            return ancestral(x, c, p, draws.z), info
        covariance = self.covariance.at(x, c.now, p.x0_hat)
        if self.covariance.stationary:
            return transition(x, c, p.x0_hat, covariance.matrices, draws.z), info
        eps = jax.random.normal(draws.require_key(), x.shape, x.dtype)
        return move(x, c, p.x0_hat + covariance.draw(eps), draws.z), info


def transition(x, c: Steps, x0, covariance, z) -> jax.Array:
    """`move` to x₀ ~ N(x0, F* diag(covariance) F), both draws in one."""
    total = c.x0_coef**2 * covariance + c.noise_coef**2 * jnp.eye(x.shape[-1], dtype=x.dtype)
    return c.x0_coef * x0 + c.xt_coef * x + filtered(small_matrices.cholesky(total), z)
