"""ΠGDM: pseudo-inverse guided diffusion."""

import jax
import jax.numpy as jnp

from jaxdiff.denoiser import Prior, as_prior
from jaxdiff.noise import Noise, as_noise
from jaxdiff.observation import as_measurement
from jaxdiff.operators import Operator, Stack, as_operators
from jaxdiff.samplers.base import (
    Draws,
    Restorer,
    ancestral,
    as_scale,
)
from jaxdiff.schedules import Steps
from jaxdiff.util.arrays import Array, Number
from jaxdiff.util.pytree import field, pytree, static


@pytree
class PiGDM(Restorer):
    """Posterior samples given y = Ax + σ·noise, by the regularised inverse of a linear A.

    x_{t−1} = DDPM step + scale·r²·g/√(1+v), where g = (∂x̂₀/∂x_t)ᵀ d is one vector-Jacobian
    product with d = Aᵀ(r²AAᵀ + σ²I)⁻¹(y − A x̂₀); σ = 0 counts as 1e-8. Every evaluation of the
    network serves the gradient and the transition.

    `variance="course"`: v is the DDPM posterior variance, r² = v/(1+v), taken for a variance of
    image units: x̂₀ is decoded to an image before A, d and g.
    `variance="paper"`: v = (σ_t/α_t)², so that r² = v/(1+v) and 1/√(1+v) are 1−ᾱ_t and √ᾱ_t; r² is
    a variance of the prior's states, and A includes their decoding. Its guidance does not shrink
    with the step: use it at about 20 steps and "course" at 50 to 100. Under a schedule that does not
    preserve variance, v and the step are those of the states that do, `Steps.guidance`.

    Args:
        denoiser: a `Denoiser` or its stand-in.
        operator: a linear A of `jd.operators`; where its `solve` has no closed form, the step's
            info says how conjugate gradients ended.
        y: the measurement [H, W, C] in image units, or a batch of them [B, H, W, C].
        sigma: the standard deviation of its noise in image units (10/255, say), ≥ 0; [B] of them
            where y is a batch whose noise levels differ.
        scale: the weight of the guidance, ≥ 0.
        variance: "course" or "paper".

    Raises:
        ValueError: for a y that does not fit the operator, a negative sigma or scale, an unknown
            variance, an operator that is not linear; TypeError: for no `jd.operators.Linear`.

    Source: Song et al. 2023 (ICLR, "Pseudoinverse-guided diffusion models for inverse
    problems"), equation 7 and algorithm 1, with a DDPM transition in place of its DDIM one.

    Example:
        >>> import jax, numpy as np, jaxdiff as jd
        >>> prior = jd.priors.Gaussian(np.full((8, 8), 0.1), jd.Schedule.from_config())
        >>> blur = jd.operators.Blur(np.ones((3, 3)) / 9, (8, 8))
        >>> y = np.full((8, 8, 1), 0.5)
        >>> sampler = PiGDM(prior, blur, y, sigma=10 / 255)
        >>> jd.sample(sampler, prior.schedule.steps(2), key=jax.random.key(0)).shape
        (1, 8, 8, 1)
    """

    denoiser: Prior = field(converter=as_prior)
    operator: Operator | Stack = field(converter=as_operators)
    y: Array = field(converter=as_measurement)
    sigma: Number | Noise = field(converter=as_noise)
    scale: Number = field(default=1.0, converter=as_scale("scale"))
    variance: str = static(default="course")
    requires_linear = True

    @property
    def linear_decode(self) -> bool:
        """Where r² is of the states: "paper"."""
        return self.variance != "course"

    def __post_init__(self):
        super().__post_init__()
        if self.variance not in ("course", "paper"):
            raise ValueError(f"variance: expected 'course' or 'paper', got {self.variance!r}")

    def step(self, x, c: Steps, draws: Draws):
        if self.variance == "course":  # its r² meets images, and not the states it is a variance of
            v = c.posterior_variance
            r2, weight = v / (1 + v), 1 / jnp.sqrt(1 + v)
            observation, view = self.measured, self.denoiser.decode
        else:  # v/(1+v) and 1/√(1+v), also where α = 0 and v is infinite
            r2, weight = c.now.noise, jnp.sqrt(c.now.signal)
            observation, view = self.observation, lambda x0: x0

        def guided(x_t):
            p = self.denoiser.predict(x_t, c.now)
            return view(p.x0_hat), p

        x0, vjp, p = jax.vjp(guided, x, has_aux=True)
        residual = observation.residual(x0)
        d, report = observation.solve(residual, r2)
        (g,) = vjp(d)
        weight = jnp.asarray(self.scale, x.dtype) * r2 * weight * c.guidance
        x = ancestral(x, c, p, draws.z) + weight * g
        info = {"t": c.t, "x0_hat": p.x0_hat, "residual": jnp.linalg.norm(residual)}
        return x, info | report
