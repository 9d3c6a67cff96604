"""The linear system of a measurement: what a residual says of an image, and of the image's own model."""

from copy import copy

import jax
import jax.numpy as jnp

from jaxdiff.linalg import small_matrices
from jaxdiff.linalg.cg import conjugate_gradients
from jaxdiff.linalg.fields import filtered, fourier, half_weights, inverse_fourier
from jaxdiff.operators import Linear

# Of the residual of conjugate gradients to the measurement's, in float32: what a tighter one gains
# does not show in PSNR and calibration (benchmarks/choices.md).
TOLERANCE = 3e-3
ROUGHLY = 0.1  # the same, for a scale


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

    def solve(self, r, start=None, tolerance=None) -> tuple[jax.Array, dict[str, jax.Array]]:
        """(BΣBᵀ + σ²I)⁻¹ r by conjugate gradients, and how they ended."""
        return conjugate_gradients(
            lambda u: self.forward(self.covariance.apply(self.adjoint(u))) + self.s2 * u,
            r,
            None if self.near is None else self.precondition,
            start=start,
            tolerance=tolerance or TOLERANCE,
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

    def draw(self, key, residual) -> tuple[jax.Array, jax.Array]:
        """e ~ N(0, Σ), and σε of the shape of a residual."""
        first, second = jax.random.split(key)
        eps = jax.random.normal(second, residual.shape, residual.dtype)
        shape = jax.eval_shape(self.operator.adjoint, residual).shape
        error = self.covariance.draw(jax.random.normal(first, shape, residual.dtype))
        return error, jnp.sqrt(self.s2) * self.operator.project(eps)

    def scaled(self, c) -> "System":
        """That of cΣ, preconditioned as this one."""
        other = copy(self)
        other.covariance = self.covariance.scaled(c)
        return other

    def misfit(self, residual, u, drawn: bool):
        """How far a residual r of m numbers, u = (BΣBᵀ + σ²I)⁻¹r, is from what is expected of it.

        1 + (rᵀu/m − 1)/s, s the share of the image; 2 for that 1 where r is less a draw of it.
        """
        excess = jnp.vdot(self.enter(residual), u).real / self._numbers(residual) - 1 - drawn
        return _misfit(excess, self.share_of_prior)

    def scale(self, residual, error, noise) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The c for which a residual r is likeliest of N(0, cBΣBᵀ + bσ²I).

        A step of Fisher's scoring from c = b = 1, either of them N(1, 1) before. Of u = (BΣBᵀ + σ²I)⁻¹r
        the energies uᵀBΣBᵀu and σ²uᵀu are expected to be tr S and tr (I − S), S = (BΣBᵀ + σ²I)⁻¹BΣBᵀ,
        and their information is tr S², tr S(I − S), tr (I − S)². The traces are estimated by
        a `draw`: the energies of B·error are expected to be tr S² and tr S(I − S), of its noise
        tr S(I − S) and tr (I − S)². b keeps a wrong σ from being taken for a wrong Σ. c is held in [1/4, 4].

        Returns:
            c; the `misfit` of r; and about (cBΣBᵀ + σ²I)⁻¹(r − √c·B·error − noise), to start from.
        """

        def energies(r):
            r = self.enter(r)
            u, _ = self.solve(r, tolerance=ROUGHLY)
            both, of_noise = jnp.vdot(r, u).real, self.s2 * jnp.vdot(u, u).real
            return u, jnp.stack([both - of_noise, of_noise])

        u, found = energies(residual)
        of_error, first = energies(self.operator(error))
        of_noise, second = energies(noise)
        information = jnp.stack([first, second])
        information = (information + information.T) / 2
        # The estimates double the variance of what is found.
        excess = found - first - second
        c = 1 + jnp.linalg.solve(information + 4 * jnp.eye(2, dtype=found.dtype), excess)[0]
        c = jnp.clip(c, 0.25, 4)
        numbers = self._numbers(residual)
        misfit = _misfit(found.sum() / numbers - 1, first.sum() / numbers)
        return c, misfit, u - jnp.sqrt(c) * of_error - of_noise

    def _numbers(self, residual):
        return jnp.sum(self.operator.project(jnp.ones_like(residual)))


def _misfit(excess, share):
    """1 where there is nothing to tell."""
    return jnp.where(share > 0.02, 1 + excess / share, 1)
