"""DPS: diffusion posterior sampling."""

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
class DPS(Restorer):
    """Posterior samples given y = A(x) + noise, by a gradient through the network.

    x_{t−1} = DDPM step − scale·η·∇_{x_t} ‖y − A(x̂₀)‖₂, x̂₀ clipped by the prior inside the gradient,
    one network evaluation a step. `step_size="fixed"`: η = 1, a scale near 1 is usual;
    `"adaptive"`: η = β_t/√α_t of the respaced schedule, a scale near 100. Both want many steps. Under a
    schedule that does not preserve variance, the step is that of the states that do, `Steps.guidance`.

    Args:
        denoiser: a `Denoiser` or its stand-in.
        operator: A, from images [H, W, C] in [0, 1]; any differentiable function of one image.
        y: the measurement [H, W, C] in image units, or a batch of them [B, H, W, C].
        scale: the weight ζ ≥ 0 of the gradient.
        step_size: "fixed" or "adaptive".
        sigma: a `jd.noise` whose residual takes the place of y − A(x̂₀), such as one that is larger
            where there is more light; a number changes nothing.

    Raises:
        ValueError: for a y that does not fit the operator, a negative scale, an unknown step size.

    Source: Chung et al. 2022 (arXiv 2209.14687), algorithm 1, whose ζ'/‖A(x̂₀) − y‖ times the
    squared norm's gradient is twice the plain norm's; the norm is per sample.

    Example:
        >>> import jax, numpy as np, jaxdiff as jd
        >>> prior = jd.priors.Gaussian(np.full((8, 8), 0.1), jd.Schedule.from_config())
        >>> blur = jd.operators.Blur(np.ones((3, 3)) / 9, (8, 8))
        >>> y = np.full((8, 8, 1), 0.5)
        >>> sampler = DPS(prior, blur, y)
        >>> jd.sample(sampler, prior.schedule.steps(2), key=jax.random.key(0)).shape
        (1, 8, 8, 1)
    """

    denoiser: Prior = field(converter=as_prior)
    operator: Operator | Stack = field(converter=as_operators)
    y: Array = field(converter=as_measurement)
    scale: Number = field(default=1.0, converter=as_scale("scale"))
    step_size: str = static(default="fixed")
    sigma: Number | Noise | None = field(
        default=None, converter=lambda s: None if s is None else as_noise(s)
    )

    def __post_init__(self):
        super().__post_init__()
        if self.step_size not in ("fixed", "adaptive"):
            raise ValueError(f"step_size: expected 'fixed' or 'adaptive', got {self.step_size!r}")

    def step(self, x, c: Steps, draws: Draws):
        observation = self.observation

        def misfit(x_t):
            p = self.denoiser.predict(x_t, c.now)
            return norm(observation.residual(p.x0_hat)), p

        (residual, p), g = jax.value_and_grad(misfit, has_aux=True)(x)
        eta = 1
        if self.step_size == "adaptive":  # where there is no signal, nothing is guided
            eta = jnp.where(
                c.alphas > 0, c.betas / jnp.sqrt(jnp.where(c.alphas > 0, c.alphas, 1)), 0
            )
        x = ancestral(x, c, p, draws.z) - jnp.asarray(self.scale, x.dtype) * eta * c.guidance * g
        return x, {"t": c.t, "x0_hat": p.x0_hat, "residual": residual}


def norm(r):
    """‖r‖₂, with gradient 0 and not NaN where r is 0."""
    squared = jnp.sum(jnp.square(r))
    positive = squared > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1)), 0)
