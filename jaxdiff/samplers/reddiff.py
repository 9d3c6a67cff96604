"""RED-diff: variational restoration with a denoiser for its regulariser."""

import jax
import jax.numpy as jnp
import optax

from jaxdiff.samplers.base import Draws, PosteriorSampler, as_scale
from jaxdiff.schedules import Steps
from jaxdiff.util.arrays import Number
from jaxdiff.util.pytree import field, pytree

ADAM = optax.scale_by_adam(b2=0.99)


@pytree
class REDDiff(PosteriorSampler):
    """The mode of a Gaussian fitted to the posterior, by an optimiser with no gradient of the network.

    A step of Adam (β = 0.9, 0.99) on v·mean(y − A(μ))²/2 + λ(σ_t/α_t)·mean(sg(ε̂ − ε)·μ), ε̂ at
    x_t = α_t·μ + σ_t·ε. The state is μ and Adam's moments. One evaluation a step; 100 steps are usual.

    Args:
        denoiser, operator, y, sigma: as of `PosteriorSampler`; sigma says where it begins alone.
        lambda_: λ ≥ 0, the weight of the prior.
        obs_weight: v ≥ 0, of misfits in image units: the official 1 is of [-1, 1].
        lr: Adam's step.

    Raises:
        ValueError: for a y that does not fit the operator, numbers out of range.

    Source: Mardani et al. 2023 (arXiv 2305.04391), algorithm 1. Theirs begins at A⁺y, with
    a cut-off by operator; here μ₀ = Aᵀ(AAᵀ + σ²I)⁻¹y, which is A⁺y without noise, and grey where A is not
    linear. The official code has no σ_v, by which the paper divides.

    Example:
        >>> import jax, numpy as np, jaxdiff as jd
        >>> prior = jd.priors.Gaussian(np.full((8, 8), 0.1), jd.Schedule.from_config())
        >>> blur = jd.operators.Blur(np.ones((3, 3)) / 9, (8, 8))
        >>> sampler = REDDiff(prior, blur, np.full((8, 8, 1), 0.5), sigma=10 / 255)
        >>> jd.sample(sampler, sampler.steps(2), key=jax.random.key(0)).shape
        (1, 8, 8, 1)
    """

    lambda_: Number = field(default=0.25, converter=as_scale("lambda_"))
    obs_weight: Number = field(default=4.0, converter=as_scale("obs_weight"))
    lr: Number = field(default=0.1, converter=as_scale("lr"))

    def begin(self, x):
        mu = jnp.zeros_like(x)
        if self.conjugate:
            mu = self.observation.prox(mu, jnp.ones((), x.dtype))[0]
        return mu, ADAM.init(mu)

    def result(self, state):
        return state[0]

    def step(self, x, c: Steps, draws: Draws):
        mu, moments = x
        p = self.denoiser.predict(c.now.alpha * mu + c.now.sigma * draws.z, c.now)
        weight = jnp.asarray(self.lambda_, mu.dtype) * c.now.sigma / c.now.alpha

        def loss(mu):
            misfit = jnp.mean(self.observation.residual(mu) ** 2) / 2
            prior = jnp.mean((p.eps - draws.z) * mu)
            return jnp.asarray(self.obs_weight, mu.dtype) * misfit + weight * prior

        lr = jnp.asarray(self.lr, mu.dtype)
        change, moments = ADAM.update(jax.grad(loss)(mu), moments)
        mu = optax.tree.add_scale(mu, -lr, change)
        residual = jnp.linalg.norm(self.observation.residual(mu))
        return (mu, moments), {"t": c.t, "x0_hat": p.x0_hat, "residual": residual}
