"""FAST-DIPS: restoration by a few splitting steps on x̂₀."""

import jax
import jax.numpy as jnp

from jaxdiff.samplers.base import Draws, PosteriorSampler, as_count, as_scale, move
from jaxdiff.schedules import Steps
from jaxdiff.util.arrays import Number
from jaxdiff.util.pytree import field, pytree


@pytree
class FastDIPS(PosteriorSampler):
    """Restorations of any differentiable operator, with no gradient through the network.

    x nears argmin ‖x − x̂₀‖² subject to ‖A(x) − y‖ ≤ ε√m, m the number of measurements, by K steps of
    g = (x − x̂₀)/s² + ρJᵀ(A(x) − v + u), s = σ_t/α_t and J the operator's Jacobian at x,
    x −= a·g with a = ‖g‖²/(‖g‖²/s² + ρ‖Jg‖²), at most 1; v the point of that ball next to A(x) + u;
    u += A(x) − v. Then x_s = α_s·x + σ_s·z. One evaluation a step; 75 steps are usual.

    Args:
        denoiser, operator, y, sigma: as of `PosteriorSampler`.
        K: splitting steps, ≥ 1.
        rho: ρ ≥ 0, the penalty.
        epsilon: ε ≥ 0, how far from y an A(x) may be, as a deviation in image units; None has that of
            Gaussian noise.

    Raises:
        ValueError: for a y that does not fit the operator, numbers out of range.
        TypeError: for another noise and no epsilon.

    Source: Kim et al. 2026 (arXiv 2603.01591), with its step that minimises the quadratic model and
    without its backtracking; the paper's ε is 0.05 for every noise.

    Example:
        >>> import jax, numpy as np, jaxdiff as jd
        >>> prior = jd.priors.Gaussian(np.full((8, 8), 0.1), jd.Schedule.from_config())
        >>> sampler = FastDIPS(prior, lambda x: x**2, np.full((8, 8, 1), 0.2), sigma=0.05)
        >>> jd.sample(sampler, sampler.steps(3), key=jax.random.key(0)).shape
        (1, 8, 8, 1)
    """

    K: int = field(default=3, static=True, converter=as_count("K"))
    rho: Number = field(default=200.0, converter=as_scale("rho"))
    epsilon: Number | None = field(default=None, converter=as_scale("epsilon", optional=True))

    @property
    def requires_gaussian(self):
        """Where the noise says how far from y an image may be."""
        return self.epsilon is None

    def step(self, x, c: Steps, draws: Draws):
        x0_hat, seen = self.denoiser.predict(x, c.now).x0_hat, self.observation
        deviation = seen.sigma if self.epsilon is None else self.epsilon
        rho, radius = (jnp.asarray(v, x.dtype) for v in (self.rho, deviation))
        radius, precision = radius * seen.y.size**0.5, (c.now.alpha / c.now.sigma) ** 2

        def in_ball(w):
            length = jnp.linalg.norm(w)
            return w * jnp.minimum(1, radius / jnp.where(length > 0, length, 1))

        def split(_, state):  # misfits w = A(x) − y in place of A(x): v − y stands for v
            x, v, u = state
            w, pullback = jax.vjp(lambda x: -seen.residual(x), x)
            g = precision * (x - x0_hat) + rho * pullback(w - v + u)[0]
            _, along = jax.jvp(lambda x: -seen.residual(x), (x,), (g,))
            size = jnp.sum(g**2)
            curvature = precision * size + rho * jnp.sum(along**2)
            x = x - jnp.minimum(size / jnp.where(curvature > 0, curvature, 1), 1) * g
            w = u - seen.residual(x)
            v = in_ball(w)
            return x, v, w - v

        start = in_ball(-seen.residual(x0_hat))
        x0, _, _ = jax.lax.fori_loop(0, self.K, split, (x0_hat, start, jnp.zeros_like(start)))
        info = {"t": c.t, "x0_hat": x0_hat, "residual": jnp.linalg.norm(seen.residual(x0))}
        return move(x, c, x0, draws.z, 1), info
