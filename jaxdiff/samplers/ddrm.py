"""DDRM: denoising diffusion restoration models."""

import jax.numpy as jnp

from jaxdiff.samplers.base import Draws, PosteriorSampler, as_scale
from jaxdiff.schedules import Steps
from jaxdiff.util.arrays import Number
from jaxdiff.util.pytree import field, pytree


@pytree
class DDRM(PosteriorSampler):
    """Restorations given y = Ax + σ·noise, by each singular value of A, and no gradient.

    With σ' = σ_s/α_s, r = y − A x̂₀ and A = U diag(s) Vᵀ, the next state is α_s times, along Vᵀ,
    x̂₀ + √(1−η²)σ'ε̂ + ησ'z            where s = 0,
    x̂₀ + √(1−η²)σ'·Uᵀr/σ + ησ'z       where sσ' < σ,
    x̂₀ + η_b·Uᵀr/s + √(σ'² − η_b²σ²/s²)z  elsewhere. One evaluation a step; 20 steps are usual.

    Args:
        denoiser, y, sigma: as of `PosteriorSampler`, the noise Gaussian.
        operator: a linear A with a spectral or diagonal form: Blur, Mask, Downsample, Crop, Grey.
        eta: η from 0 to 1, the share of new noise where y says less than x_t.
        eta_b: η_b from 0 to 1, the weight of y where it says more.

    Raises:
        ValueError: for a y that does not fit the operator, a sigma, η or η_b out of range.
        TypeError: for an operator without a spectral or diagonal form.

    Source: Kawar et al. 2022 (arXiv 2201.11793), equations 7 and 8. Theirs begins from y where its
    noise allows; here as everywhere from noise alone, of which y is a share α_T at most.

    Example:
        >>> import jax, numpy as np, jaxdiff as jd
        >>> prior = jd.priors.Gaussian(np.full((8, 8), 0.1), jd.Schedule.from_config())
        >>> blur = jd.operators.Blur(np.ones((3, 3)) / 9, (8, 8))
        >>> sampler = DDRM(prior, blur, np.full((8, 8, 1), 0.5), sigma=10 / 255)
        >>> jd.sample(sampler, sampler.steps(2), key=jax.random.key(0)).shape
        (1, 8, 8, 1)
    """

    eta: Number = field(default=0.85, converter=as_scale("eta", 1))
    eta_b: Number = field(default=1.0, converter=as_scale("eta_b", 1))
    requires_linear = requires_spectral = True

    def step(self, x, c: Steps, draws: Draws):
        p, seen = self.denoiser.predict(x, c.now), self.observation
        a, residual = seen.operator.linear, seen.residual(p.x0_hat)
        eta, eta_b, sigma = (jnp.asarray(v, x.dtype) for v in (self.eta, self.eta_b, seen.sigma))
        noise = c.next.sigma / c.next.alpha
        kept = jnp.sqrt(1 - eta**2) * noise

        def toward_y(e):  # of Aᵀr, e = s²
            zero, e, s = values(e)
            less = kept / (sigma * s)
            return jnp.where(zero, 0, jnp.where(s * noise < sigma, less, eta_b / e))

        def fresh(e):
            zero, e, s = values(e)
            less = zero | (s * noise < sigma)
            more = jnp.sqrt(jnp.maximum(noise**2 - eta_b**2 * sigma**2 / e, 0))
            return jnp.where(less, eta * noise, more)

        x0 = p.x0_hat + a.spectral(toward_y, a.adjoint(residual)) + a.spectral(fresh, draws.z)
        x0 += a.spectral(lambda e: jnp.where(values(e)[0], kept, 0), p.eps)
        info = {"t": c.t, "x0_hat": p.x0_hat, "residual": jnp.linalg.norm(residual)}
        return c.next.alpha * x0, info


def values(e):
    """Which of the eigenvalues s² of AᵀA are 0 up to rounding, and s² and s, 1 in their place."""
    zero = e <= jnp.max(e) * (64 * jnp.finfo(e.dtype).eps) ** 2
    e = jnp.where(zero, 1, e)
    return zero, e, jnp.sqrt(e)
