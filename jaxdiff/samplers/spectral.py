"""Posterior samples by conditioning on the measurement the error that the denoiser makes."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxdiff.denoiser import Prior, as_prior
from jaxdiff.linalg.fields import Modulated
from jaxdiff.noise import Gaussian, Noise, as_noise
from jaxdiff.observation import as_measurement, check_linear, first, is_linear
from jaxdiff.operators import Linear, Operator, Stack, as_operators
from jaxdiff.samplers.base import (
    Covariance,
    Draws,
    Restorer,
    move,
)
from jaxdiff.samplers.ddpm import transition
from jaxdiff.samplers.jacobian import correction, with_covariance
from jaxdiff.samplers.linearised import linearised
from jaxdiff.samplers.system import System
from jaxdiff.schedules import Steps
from jaxdiff.util.arrays import Array, Number
from jaxdiff.util.pytree import field, pytree, static

# Draws around which a camera is linearised: what more of them gain does not show (benchmarks/choices.md).
POINTS = 4


@pytree
class SpectralPosterior(Restorer):
    """Posterior samples given y = A(x) + noise, calibrated: no scale to tune, and no gradient of the network.

    Given x_t, x₀ is taken for a draw of N(x̂₀, Σ), Σ the measured covariance of the denoiser's error
    (`SpectralCovariance`). A step draws x₀ from that Gaussian *conditioned on y*, then
    x_s ~ q(x_s | x_t, x₀). With B = A∘decode, the map from states to measurements (linear part),

    - B a circular filter of response K, Σ stationary: per frequency, G = Σ(|K|²Σ + σ²I)⁻¹, mean
      x̂₀ + K*G·(y − B x̂₀), covariance σ²G, in closed form; one draw serves x₀ and x_s;
    - any other operator or Σ, by Matheron's rule: x₀' ~ N(x̂₀, Σ), y' = B x₀' + σε, and
      x₀ = x₀' + ΣBᵀ(BΣBᵀ + σ²I)⁻¹(y − y') by conjugate gradients: FFTs and no network.

    Where A is not linear or the noise not Gaussian, a step takes the linear A and the Gaussian noise that
    are near them for z ~ N(x̂₀, Σ) (`jaxdiff.samplers.linearised`). Phase retrieval is refused, whose
    measurement is that of images far from each other.

    A Σ that follows the contrast of x̂₀ is multiplied by the c, at each level of each image, for which the
    residual r = y − B x̂₀ is likeliest, whatever the level of its noise (`System.scale`): a face with a
    beard is harder than one without, and a prior is less sure of what it does not know.

    `keep=` may record `info["scale"]`, that c, and `info["misfit"]`: 1 + (rᵀ(BΣBᵀ + σ²I)⁻¹r/m − 1)/s under
    the Σ that is not scaled, of m numbers, s the share of y that is of the image and not of its noise. It is
    1 on average where y is as prior, camera and noise say, and larger where one of them is wrong; 1 too
    where s < 0.02. Where A is not linear Σ is taken as it was measured, and neither is there.

    Exact on a stationary Gaussian prior with its own covariance, at any number of steps with
    `spacing="trailing"`.

    Args:
        denoiser: a `Denoiser` or its stand-in.
        operator: A, of `jd.operators`, or any differentiable function of an image [H, W, C].
        y: the measurement in image units, or a batch of them [B, ...].
        sigma: the standard deviation of its noise in image units, ≥ 0, or [B] of them; or a `jd.noise`
            with a `variance`.
        covariance: a `SpectralCovariance`, or a prior's own `covariance`: an object with
            `at(x_t, level, x̂₀)`, which gives Σ as `apply(v)` and `draw(ε)`, and `stationary`, whether
            that is a matrix a frequency.
        draw: False takes the conditioned mean for x₀: sharper, and with too little spread.
        jacobian: True conditions the mean with the network's own covariance of x₀
            (`jaxdiff.samplers.jacobian`): a gradient through the network in each step with little
            noise but some, and a sharper mean.
        scaled: False takes a Σ that follows the contrast as it was measured.

    Raises:
        ValueError: for a y that does not fit the operator, a negative sigma, a `Linear` that is
            not linear, a covariance of other channels or another noise schedule.
        TypeError: for a noise without a variance, and for `PhaseRetrieval`.

    Source: our own. Near relatives: Peng et al. 2024 (arXiv 2402.02149), Rissanen et al. 2025
    (arXiv 2410.11149), CoDPS (arXiv 2409.08906); Matheron's rule: Doucet 2010.

    Example:
        >>> import jax, numpy as np, jaxdiff as jd
        >>> prior = jd.priors.Gaussian(np.full((8, 8), 0.1), jd.Schedule.from_config())
        >>> blur = jd.operators.Blur(np.ones((3, 3)) / 9, (8, 8))
        >>> y = np.full((8, 8, 1), 0.5)
        >>> sampler = SpectralPosterior(prior, blur, y, 10 / 255, prior.covariance)
        >>> jd.sample(sampler, prior.schedule.steps(2), key=jax.random.key(0)).shape
        (1, 8, 8, 1)
    """

    denoiser: Prior = field(converter=as_prior)
    operator: Operator | Stack = field(converter=as_operators)
    y: Array = field(converter=as_measurement)
    sigma: Number | Noise = field(converter=as_noise)
    covariance: Covariance
    draw: bool = static(default=True)
    jacobian: bool = static(default=False)
    scaled: bool = static(default=True)

    @property
    def linear_decode(self) -> bool:
        """Yes: Σ is of states."""
        return True

    def __post_init__(self):
        super().__post_init__()
        if first(self.operator).ambiguous:
            raise TypeError(
                f"operator: {first(self.operator).name} measures the same of images far from each other, and "
                "this method takes the straight line near one: DAPS takes it"
            )
        if isinstance(first(self.operator), Linear):
            check_linear(self.operator, self._image_shape)
        if self.noise is not None and not isinstance(self.noise, Gaussian):
            jax.eval_shape(self.noise.variance, jax.ShapeDtypeStruct((), jnp.float32))
        self.covariance.check(self.denoiser)

    def step(self, x, c: Steps, draws: Draws):
        x0, covariance, info = self.conditioned(x, c, draws)
        if covariance is None:
            return move(x, c, x0, draws.z), info
        return transition(x, c, x0, covariance, draws.z), info

    def conditioned(self, x, c: Steps, draws: Draws) -> tuple[jax.Array, Any, dict[str, Any]]:
        """x₀ given x_t and y: its mean and covariance, a matrix a frequency; or a draw of it, and None."""
        if self.jacobian:
            p, times_covariance = with_covariance(self.denoiser, x, c.now)
        else:
            p, times_covariance = self.denoiser.predict(x, c.now), None
        covariance = self.covariance.at(x, c.now, p.x0_hat)

        def errors():
            key = jax.random.fold_in(draws.require_key(), POINTS)
            e = jax.random.normal(key, (POINTS // 2, *x.shape), x.dtype)
            e = jax.vmap(covariance.draw)(e)
            return jnp.concatenate([e, -e])

        seen = linearised(self.observation, p.x0_hat, errors)
        operator: Any = seen.operator
        residual, sigma = seen.y, jnp.asarray(seen.sigma, x.dtype)
        # σ = 0 counts as what rounding makes of it.
        s2 = jnp.maximum(sigma**2, jnp.finfo(x.dtype).eps / 256)
        info = {"t": c.t, "x0_hat": p.x0_hat, "residual": jnp.linalg.norm(residual)}
        system = System(operator, covariance, s2, x.shape)
        # Of a slope that the draws did not see, a residual says nothing of Σ.
        straight = is_linear(self.observation.operator)
        closed = system.outer is None and self.covariance.stationary
        error = noise = jnp.zeros((), x.dtype)
        start = None
        if self.draw and not closed:
            error, noise = system.draw(draws.require_key(), residual)
            if self.scaled and straight and isinstance(covariance, Modulated):
                scale, info["misfit"], start = system.scale(residual, error, noise)
                system, error, info["scale"] = system.scaled(scale), jnp.sqrt(scale) * error, scale
        mean, converged = p.x0_hat, True
        if times_covariance is not None:
            change, converged = correction(times_covariance, system, residual, c)
            mean, info["cg_converged"] = mean + change, converged
        if closed:
            shift, left = system.conditioned(residual)
            u = system.precondition(system.enter(residual))
            info["misfit"] = system.misfit(residual, u, drawn=False)
            return mean + shift, left if self.draw else None, info
        if self.draw:  # Matheron's rule
            residual = residual - system.operator(error) - noise
        u, report = system.solve(system.enter(residual), start)
        if straight:
            info.setdefault("misfit", system.misfit(residual, u, self.draw))
        report["cg_converged"] &= converged
        x0 = mean + error + system.covariance.apply(system.adjoint(u))
        return x0, None, info | report
