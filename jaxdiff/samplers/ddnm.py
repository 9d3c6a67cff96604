"""DDNM+: denoising diffusion null-space models that know the noise."""

import jax.numpy as jnp

from jaxdiff.samplers.base import Draws, PosteriorSampler, as_scale
from jaxdiff.samplers.ddrm import values
from jaxdiff.schedules import Steps
from jaxdiff.util.arrays import Number
from jaxdiff.util.pytree import field, pytree


@pytree
class DDNM(PosteriorSampler):
    """Restorations given y = Ax + σ·noise, by replacing what A sees of x̂₀, and no gradient.

    x_s = α_s·(x̂₀ + ΛA⁺(y − A x̂₀)) + Γz + Κε̂. Along a right singular vector of A = U diag(s) Vᵀ, with
    a_t = α_s/s, λ = 1 and γ = √(σ_s² − a_t²σ²) where σ_s ≥ a_tσ, so that y's noise is part of x_s's;
    λ = √(1−η²)σ_s/(a_tσ) and γ = ησ_s elsewhere; κ = 0 for both. Where s = 0, γ = ησ_s and κ = √(1−η²)σ_s,
    and so everywhere if σ = 0: that is DDNM. One evaluation a step; 100 steps are usual.

    Args:
        denoiser, y, sigma: as of `PosteriorSampler`, the noise Gaussian.
        operator: a linear A with a spectral or diagonal form: Blur, Mask, Downsample, Crop, Grey.
        eta: η from 0 to 1, the share of new noise.

    Raises:
        ValueError: for a y that does not fit the operator, a sigma or η out of range.
        TypeError: for an operator without a spectral or diagonal form.

    Source: Wang et al. 2022 (arXiv 2212.00490), equations 17 to 19 and 51, without time travel. As in the
    official code, DDIM's transition with η takes the place of equation 18's. With σ > 0 it is then DDRM with
    η_b = 1; that code's scalar λ_t for denoising takes √(1 − ᾱ²) for √(1 − ᾱ).

    Example:
        >>> import jax, numpy as np, jaxdiff as jd
        >>> prior = jd.priors.Gaussian(np.full((8, 8), 0.1), jd.Schedule.from_config())
        >>> blur = jd.operators.Blur(np.ones((3, 3)) / 9, (8, 8))
        >>> sampler = DDNM(prior, blur, np.full((8, 8, 1), 0.5), sigma=10 / 255)
        >>> jd.sample(sampler, sampler.steps(2), key=jax.random.key(0)).shape
        (1, 8, 8, 1)
    """

    eta: Number = field(default=0.85, converter=as_scale("eta", 1))
    requires_linear = requires_spectral = True

    def step(self, x, c: Steps, draws: Draws):
        p, seen = self.denoiser.predict(x, c.now), self.observation
        a, residual = seen.operator.linear, seen.residual(p.x0_hat)
        eta, sigma = (jnp.asarray(v, x.dtype) for v in (self.eta, seen.sigma))
        noise = c.next.sigma / c.next.alpha
        kept = jnp.sqrt(1 - eta**2) * noise

        def toward_y(e):  # of Aᵀr = s²A⁺r, e = s²
            zero, e, s = values(e)
            return jnp.where(zero, 0, jnp.where(s * noise >= sigma, 1, s * kept / sigma) / e)

        def fresh(e):
            zero, e, s = values(e)
            left = jnp.sqrt(jnp.maximum(noise**2 - sigma**2 / e, 0))
            less = zero | (sigma == 0) | (s * noise < sigma)
            return jnp.where(less, eta * noise, left)

        def own(e):
            return jnp.where(values(e)[0] | (sigma == 0), kept, 0)

        x0 = p.x0_hat + a.spectral(toward_y, a.adjoint(residual))
        x0 += a.spectral(fresh, draws.z) + a.spectral(own, p.eps)
        info = {"t": c.t, "x0_hat": p.x0_hat, "residual": jnp.linalg.norm(residual)}
        return c.next.alpha * x0, info
