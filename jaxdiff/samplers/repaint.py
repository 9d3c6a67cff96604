"""RePaint: inpainting by harmonising what is known and what is drawn."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxdiff.observation import first
from jaxdiff.operators import Mask
from jaxdiff.samplers.base import Draws, PosteriorSampler, ancestral, as_count
from jaxdiff.schedules import Steps
from jaxdiff.util.pytree import field, pytree


@pytree
class RePaint(PosteriorSampler):
    """Missing pixels, drawn; the known ones return as they are, with their noise.

    DDPM's x_s, its known pixels replaced by α_s·y + σ_s·z, is taken back to x_t = (α_t/α_s)x_s +
    σ_t√τ·z, τ the share of new noise, and the step is taken again, `resamplings` times in all:
    as many evaluations a step, no gradient. 250 steps are usual.

    Args:
        denoiser, y, sigma: as of `PosteriorSampler`; sigma is not used.
        operator: a `jd.operators.Mask`.
        resamplings: of each step, ≥ 1.

    Raises:
        TypeError: for an operator that is no mask.
        ValueError: for a y that does not fit the mask, no resamplings.

    Source: Lugmayr et al. 2022 (arXiv 2201.09865), algorithm 1 and equation 8. The official code goes
    back ten steps at once (jump_length) ten times, which of 250 steps takes 2,410
    evaluations; as in algorithm 1, here it is one.

    Example:
        >>> import jax, numpy as np, jaxdiff as jd
        >>> prior = jd.priors.Gaussian(np.full((8, 8), 0.1), jd.Schedule.from_config())
        >>> mask = jd.operators.Mask(np.arange(64).reshape(8, 8) % 2)
        >>> sampler = RePaint(prior, mask, mask(np.full((8, 8, 1), 0.5)), sigma=0)
        >>> jd.sample(sampler, sampler.steps(2), key=jax.random.key(0)).shape
        (1, 8, 8, 1)
    """

    resamplings: int = field(default=10, static=True, converter=as_count("resamplings"))

    @property
    def linear_decode(self) -> bool:
        """Yes: each known pixel is one of a state."""
        return True

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(first(self.operator), Mask):
            raise TypeError(
                f"operator: RePaint takes jd.operators.Mask only, got {first(self.operator).name}: "
                "DDNM takes other linear operators"
            )

    @property
    def evaluations(self):
        return self.resamplings

    def step(self, x, c: Steps, draws: Draws):
        known = self.denoiser.state(jnp.asarray(self.y, x.dtype))
        mask: Any = self.operator  # a Mask, as was checked
        shows = jnp.broadcast_to(mask.mask > 0, x.shape)

        def attempt(x_t, key):
            z, of_known, back = jax.random.normal(key, (3, *x.shape), x.dtype)
            p = self.denoiser.predict(x_t, c.now)
            drawn = ancestral(x_t, c, p, z)
            x_s = jnp.where(shows, c.next.alpha * known + c.next.sigma * of_known, drawn)
            x_t = c.now.alpha / c.next.alpha * x_s + c.now.sigma * jnp.sqrt(c.fresh) * back
            return x_t, (x_s, p.x0_hat)

        keys = jax.random.split(draws.require_key(), self.resamplings)
        _, (x, x0_hat) = jax.tree.map(lambda a: a[-1], jax.lax.scan(attempt, x, keys))
        residual = self.observation.residual(x0_hat)
        return x, {"t": c.t, "x0_hat": x0_hat, "residual": jnp.linalg.norm(residual)}
