"""SITCOM: step-wise triple-consistent sampling."""

import jax
import jax.numpy as jnp
import optax

from jaxdiff.samplers.base import Draws, PosteriorSampler, as_count, as_scale, move
from jaxdiff.schedules import Steps
from jaxdiff.util.arrays import Number
from jaxdiff.util.pytree import field, pytree

ADAM = optax.scale_by_adam()


@pytree
class SITCOM(PosteriorSampler):
    """Restorations of any operator and Gaussian noise, by optimising the network's input.

    From v = x_t, Adam lowers ‖y − A(x̂₀(v))‖² until it is below (number of measurements)·σ², at most K
    times; x_s = α_s·x̂₀(v) + σ_s·z. At most K evaluations a step, each with a gradient; 20 steps
    are usual.

    Args:
        denoiser, operator, y, sigma: as of `PosteriorSampler`, the noise Gaussian.
        K: the most updates of a step, ≥ 1.
        gamma: Adam's step.

    Raises:
        ValueError: for a y that does not fit the operator, numbers out of range.
        TypeError: for a noise that is not Gaussian.

    Source: Alkhouri et al. 2024 (arXiv 2410.04479), algorithm 1. As in the official code, the paper's
    λ‖x_t − v‖² is left out, x̂₀ is that of the last evaluation, and x_s is all new noise; its
    threshold has 0.001 more than σ in [-1, 1].

    Example:
        >>> import jax, numpy as np, jaxdiff as jd
        >>> prior = jd.priors.Gaussian(np.full((8, 8), 0.1), jd.Schedule.from_config())
        >>> sampler = SITCOM(prior, lambda x: x**2, np.full((8, 8, 1), 0.2), sigma=0.05)
        >>> jd.sample(sampler, sampler.steps(3), key=jax.random.key(0)).shape
        (1, 8, 8, 1)
    """

    K: int = field(default=30, static=True, converter=as_count("K"))
    gamma: Number = field(default=0.02, converter=as_scale("gamma"))
    requires_gaussian = True

    @property
    def evaluations(self):
        return self.K

    def step(self, x, c: Steps, draws: Draws):
        seen, gamma = self.observation, jnp.asarray(self.gamma, x.dtype)
        enough = jnp.asarray(seen.sigma, x.dtype) ** 2 * seen.y.size

        def misfit(v):
            x0_hat = self.denoiser.predict(v, c.now).x0_hat
            return jnp.sum(seen.residual(x0_hat) ** 2), x0_hat

        def update(state):
            v, moments, _, _, k = state
            (value, x0_hat), g = jax.value_and_grad(misfit, has_aux=True)(v)
            change, moments = ADAM.update(g, moments)
            return optax.tree.add_scale(v, -gamma, change), moments, x0_hat, value, k + 1

        def unfinished(state):
            return (state[-1] < self.K) & (state[-2] >= enough)

        infinite = jnp.full((), jnp.inf, x.dtype)
        state = x, ADAM.init(x), jnp.zeros_like(x), infinite, jnp.int32(0)
        _, _, x0, value, _ = jax.lax.while_loop(unfinished, update, state)
        info = {"t": c.t, "x0_hat": x0, "residual": jnp.sqrt(value)}
        return move(x, c, x0, draws.z, 1), info
