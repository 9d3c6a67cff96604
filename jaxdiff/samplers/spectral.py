"""Posterior samples by conditioning on the measurement the error that the denoiser makes."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxdiff.denoiser import Prior, as_prior
from jaxdiff.linalg import small_matrices
from jaxdiff.linalg.cg import conjugate_gradients
from jaxdiff.linalg.fields import filtered, fourier, half_weights, inverse_fourier
from jaxdiff.noise import Noise, as_noise
from jaxdiff.observation import as_measurement
from jaxdiff.operators import Linear, Operator, Stack, as_operators
from jaxdiff.samplers.base import (
    Covariance,
    Draws,
    Restorer,
    move,
)
from jaxdiff.samplers.ddpm import transition
from jaxdiff.samplers.jacobian import correction, with_covariance
from jaxdiff.schedules import Steps
from jaxdiff.util.arrays import Array, Number
from jaxdiff.util.pytree import field, pytree, static

# Of the residual of conjugate gradients to the measurement's, in float32: what a tighter one gains
# does not show in PSNR and calibration (benchmarks/choices.md).
TOLERANCE = 3e-3


@pytree
class SpectralPosterior(Restorer):
    """Posterior samples given y = Ax + σ·noise, calibrated: no scale to tune, and no gradient.

    Given x_t, x₀ is taken for a draw of N(x̂₀, Σ), Σ the measured covariance of the denoiser's error
    (`SpectralCovariance`). A step draws x₀ from that Gaussian *conditioned on y*, then
    x_s ~ q(x_s | x_t, x₀). With B = A∘decode, the map from states to measurements (linear part),

    - B a circular filter of response K, Σ stationary: per frequency, G = Σ(|K|²Σ + σ²I)⁻¹, mean
      x̂₀ + K*G·(y − B x̂₀), covariance σ²G, in closed form; one draw serves x₀ and x_s;
    - any other operator or Σ, by Matheron's rule: x₀' ~ N(x̂₀, Σ), y' = B x₀' + σε, and
      x₀ = x₀' + ΣBᵀ(BΣBᵀ + σ²I)⁻¹(y − y') by conjugate gradients: FFTs and no network.

    `keep=` may record `info["misfit"]`: 1 + ((rᵀ(BΣBᵀ + σ²I)⁻¹r − E)/m)/s, r the residual y − y′ of m numbers, E = 2m its
    expectation (m without a draw), s the share of y that is of the image and not of its noise. It is 1 on
    average where y is as prior, camera and noise say, and larger where one of them is wrong; 1 too where s < 0.02.

    Exact on a stationary Gaussian prior with its own covariance, at any number of steps with
    `spacing="trailing"`.

    Args:
        denoiser: a `Denoiser` or its stand-in.
        operator: a linear A, such as those of `jd.operators`.
        y: the measurement in image units, or a batch of them [B, ...].
        sigma: the standard deviation of its noise in image units, ≥ 0; or [B] of them.
        covariance: a `SpectralCovariance`, or a prior's own `covariance`: an object with
            `at(x_t, level, x̂₀)`, which gives Σ as `apply(v)` and `draw(ε)`, and `stationary`, whether
            that is a matrix a frequency.
        draw: False takes the conditioned mean for x₀: sharper, and with too little spread.
        jacobian: True conditions the mean with the network's own covariance of x₀
            (`jaxdiff.samplers.jacobian`): a gradient through the network in each step with little
            noise but some, and a sharper mean.

    Raises:
        ValueError: for a y that does not fit the operator, a negative sigma, an operator that is
            not linear, a covariance of other channels or another noise schedule.
        TypeError: for an operator that is no `jd.operators.Linear`.

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
    requires_linear = True

    def __post_init__(self):
        super().__post_init__()
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
        # σ = 0 counts as what rounding makes of it.
        sigma = jnp.asarray(self.observation.sigma, x.dtype)
        s2 = jnp.maximum(sigma**2, jnp.finfo(x.dtype).eps / 256)
        residual = self.observation.residual(p.x0_hat)
        info = {"t": c.t, "x0_hat": p.x0_hat, "residual": jnp.linalg.norm(residual)}
        system = System(self.observation.operator.linear, covariance, s2, x.shape)
        correction_of_mean, converged = 0, True
        if times_covariance is not None:
            correction_of_mean, converged = correction(
                times_covariance, covariance, system, residual, c
            )
            info["cg_converged"] = converged
        if system.outer is None and self.covariance.stationary:
            shift, left = system.conditioned(residual)
            x0 = p.x0_hat + shift + correction_of_mean
            entered = system.enter(residual)
            solved = system.precondition(entered)
            info["misfit"] = self._misfit(system, residual, entered, solved, drawn=False)
            return x0, left if self.draw else None, info
        x0, report = self._drawn(system, p.x0_hat, draws)
        report["cg_converged"] &= converged
        return x0 + correction_of_mean, None, info | report

    def _drawn(self, system: "System", x0, draws: Draws):
        """x₀ by Matheron's rule, or its mean where nothing is to be drawn."""
        if self.draw:
            first, second = jax.random.split(draws.require_key())
            eps = jax.random.normal(first, x0.shape, x0.dtype)
            x0 = x0 + system.covariance.draw(eps)
        residual = self.observation.residual(x0)
        if self.draw:
            noise = jax.random.normal(second, residual.shape, residual.dtype)
            residual -= jnp.sqrt(system.s2) * self.operator.project(noise)
        entered = system.enter(residual)
        u, report = system.solve(entered)
        report["misfit"] = self._misfit(system, residual, entered, u, self.draw)
        return x0 + system.covariance.apply(system.adjoint(u)), report

    def _misfit(self, system: "System", residual, entered, solved, drawn: bool):
        """How far the residual is from what is expected of it, less a draw of it where one was `drawn`."""
        numbers = jnp.sum(self.operator.project(jnp.ones_like(residual)))
        square = jnp.vdot(entered, solved).real / numbers
        share = system.share_of_prior
        return jnp.where(share > 0.02, 1 + (square - 1 - drawn) / share, 1)


class System:
    """BΣBᵀ + σ²I of a linear B = P F⁻¹ diag(K) F, and the space it is solved in.

    That space is the measurement's; of a circular filter (no P) its frequencies, which halves the
    number of transforms. The preconditioner is r → Q F⁻¹ diag((|K|²Σ + σ²I)⁻¹) F Qᵀ r with what the
    operator says it is `near`: a deviation of Σ that varies is left out; none for a Σ without a matrix
    a frequency.
    """

    def __init__(self, operator: Linear, covariance, s2, shape):
        self.operator, self.covariance, self.s2, self.shape = operator, covariance, s2, shape[:2]
        self.outer, self.response = operator.factors(s2.dtype)
        self.matrices = getattr(covariance, "matrices", None)  # of Σ, by frequency
        if self.matrices is None:
            self.outer, self.near = operator, None
            return
        identity = jnp.eye(self.matrices.shape[-1], dtype=s2.dtype)
        identity = jnp.broadcast_to(identity, self.matrices.shape)
        self.near = operator.near(s2.dtype)
        response = self.response if self.near is None else self.near[1]
        self._power = jnp.abs(response)[..., None] ** 2 * self.matrices + s2 * identity
        self._inverse = small_matrices.solve(self._power, identity)

    @property
    def share_of_prior(self):
        """Of what y says, how much is of the image and not of its noise: tr (BΣBᵀ + σ²I)⁻¹BΣBᵀ, a number."""
        if self.outer is not None and self.near is None:
            return 1.0
        of_noise = self.s2 * jnp.trace(self._inverse, axis1=-2, axis2=-1) / self._inverse.shape[-1]
        return 1 - jnp.average(of_noise.mean(0), weights=half_weights(self.shape[1]))

    def forward(self, v):
        """B v."""
        return self.operator(v) if self.outer is not None else self.response * fourier(v)

    def adjoint(self, u):
        """Bᵀu."""
        if self.outer is not None:
            return self.operator.adjoint(u)
        return inverse_fourier(jnp.conj(self.response) * u, self.shape)

    def enter(self, r):
        """A residual of the measurement, in the space of the system."""
        return r if self.outer is not None else fourier(r)

    def solve(self, r) -> tuple[jax.Array, dict[str, jax.Array]]:
        """(BΣBᵀ + σ²I)⁻¹ r by conjugate gradients, and how they ended."""
        return conjugate_gradients(
            lambda u: self.forward(self.covariance.apply(self.adjoint(u))) + self.s2 * u,
            r,
            None if self.near is None else self.precondition,
            tolerance=TOLERANCE,
        )

    def conditioned(self, residual) -> tuple[jax.Array, jax.Array]:
        """Mean and covariance of x₀ − x̂₀ ~ N(0, Σ) given the residual of a filter, per frequency."""
        gain = small_matrices.solve(self._power, self.matrices)
        return filtered(jnp.conj(self.response)[..., None] * gain, residual), self.s2 * gain

    def precondition(self, r):
        """About (BΣBᵀ + σ²I)⁻¹ r; of a filter and a Σ that is a matrix a frequency, exactly."""
        if self.outer is None:
            return small_matrices.apply(self._inverse, r)
        assert self.near is not None  # else there is nothing near it, and `solve` does without
        around = self.near[0]
        if around is None:
            return filtered(self._inverse, r)
        return around(filtered(self._inverse, around.adjoint(r)))
