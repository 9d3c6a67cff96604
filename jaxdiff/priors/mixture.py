"""The exact denoiser of a mixture of Gaussians, and exact posterior samples to compare with."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.denoiser import Prior
from jaxdiff.schedules import Level, Schedule
from jaxdiff.util.arrays import Array, Number
from jaxdiff.util.pytree import pytree


@pytree
class GaussianMixture(Prior):
    """x₀ ~ Σ_k w_k N(m_k, C_k): E[x₀ | x_t], Cov[x₀ | x_t] and p(x₀ | y) in closed form.

    With C_k = U_k diag(λ_k) U_kᵀ and v_k = α_t²·λ_k + σ_t², component k is responsible for x_t in
    proportion to w_k N(x_t; α_t·m_k, U_k diag(v_k) U_kᵀ), and its mean given x_t is
    m_k + α_t·U_k diag(λ_k/v_k) U_kᵀ (x_t − α_t·m_k). No clipping, in [-1, 1]. Dense matrices, so
    for D = H·W·C up to about a thousand; of multiples of the identity, for any D.

    Args:
        means: [K, H, W, C].
        covariances: [K, D, D]; their eigenvalues [K, H, W] in the order of `fft2` where the
            components are stationary images of one channel; or variances [K], each component's
            covariance that multiple of the identity.
        weights: [K], positive; they are normalised.
        schedule: gives the level of a timestep.

    Raises:
        ValueError: for shapes that do not fit, covariances that are none, weights that are none.

    Source: the test bed of Cardoso et al. 2024 (MCGDiff, arXiv 2308.07983), section 4.

    Example:
        >>> means = np.stack([np.full((2, 2, 1), -0.5), np.full((2, 2, 1), 0.5)])
        >>> prior = GaussianMixture(means, np.full((2, 2, 2), 0.01), [1, 3], Schedule.from_config())
        >>> round(float(prior(jnp.zeros((2, 2, 1)), 999).mean()), 2)
        0.25
    """

    means: Array
    covariances: Array
    weights: Array
    schedule: Schedule
    eigenvalues: Any = None  # [K, D], of the covariances: filled in
    eigenvectors: Any = None  # [K, D, D], None where they are those of the identity

    def __post_init__(self):
        means, weights = np.asarray(self.means, np.float64), np.asarray(self.weights, np.float64)
        covariances = np.asarray(self.covariances, np.float64)
        if means.ndim != 4 or 0 in means.shape:
            raise ValueError(f"means: expected [K, H, W, C], got {list(means.shape)}")
        count, size = len(means), int(np.prod(means.shape[1:]))
        if weights.shape != (count,) or not ((weights > 0) & np.isfinite(weights)).all():
            raise ValueError(f"weights: expected {count} positive numbers, got {self.weights!r}")
        if covariances.shape == means.shape[:3] and means.shape[3] == 1:
            covariances = np.stack([_circulant(spectrum) for spectrum in covariances])
        if covariances.shape not in ((count,), (count, size, size)):
            raise ValueError(
                f"covariances: expected {[count, size, size]}, eigenvalues {list(means.shape[:3])} "
                f"for one channel, or variances {[count]}, got {list(covariances.shape)}"
            )
        if covariances.ndim == 1:
            values, vectors = np.repeat(covariances[:, None], size, 1), None
            symmetric = True
        else:
            values, vectors = np.linalg.eigh(covariances)
            symmetric = np.allclose(covariances, covariances.swapaxes(1, 2))
        if not symmetric or values.min() < -1e-9 * abs(values).max():
            raise ValueError("covariances: expected symmetric matrices with no negative eigenvalue")
        return {
            "means": means,
            "covariances": covariances,
            "weights": weights / weights.sum(),
            "eigenvalues": np.maximum(values, 0),
            "eigenvectors": vectors,
        }

    @property
    def shape(self) -> tuple[int, ...]:
        """[H, W, C]."""
        return self.means.shape[1:]

    @property
    def covariance(self) -> "MixtureCovariance":
        """Cov[x₀ | x_t], exactly: another one for every x_t."""
        return MixtureCovariance(self)

    def __call__(self, x, at):
        """x̂₀ of x_t [..., H, W, C] at a level or a timestep."""

        def mean(x):
            responsibility, each, _ = self._given(x, self.level(at))
            return responsibility @ each

        batch = x.reshape(-1, *self.shape)
        return jax.vmap(mean)(batch).reshape(x.shape)

    def _given(self, x_t, at: Level):
        """What is known of each component given one x_t.

        Its responsibility [K], and of x₀ its mean [K, D] and the eigenvalues of its covariance
        [K, D].
        """
        alpha, sigma = jnp.asarray(at.alpha, x_t.dtype), jnp.asarray(at.sigma, x_t.dtype)
        means, weights, values = (
            jnp.asarray(v, x_t.dtype) for v in (self.means, self.weights, self.eigenvalues)
        )
        means = means.reshape(len(means), -1)
        variance = alpha**2 * values + sigma**2
        z = self._rotate(x_t.ravel() - alpha * means, "kde,kd->ke")
        log_density = -0.5 * jnp.sum(z**2 / variance + jnp.log(variance), -1)
        responsibility = jax.nn.softmax(log_density + jnp.log(weights))
        shift = self._rotate(alpha * values / variance * z, "kde,ke->kd")
        return responsibility, means + shift, values * sigma**2 / variance

    def _rotate(self, vectors, subscripts):
        """Into the eigenvectors of the components, or back."""
        if self.eigenvectors is None:
            return vectors
        return jnp.einsum(subscripts, jnp.asarray(self.eigenvectors, vectors.dtype), vectors)

    def sample_posterior(self, key, operator, y, sigma: float, n: int) -> np.ndarray:
        """n exact draws of x₀ [n, H, W, C], model units, given y = A((x₀ + 1)/2) + σ·noise, σ > 0.

        Component k's weight becomes w_k N(y; A(m_k + 1)/2, AC_kAᵀ/4 + σ²I).

        Raises:
            ValueError: for σ = 0.
        """
        if not sigma > 0:
            raise ValueError(f"sigma: expected a number > 0, got {sigma!r}")
        size = int(np.prod(self.shape))
        unit = jnp.eye(size).reshape(size, *self.shape)
        a = np.asarray(jax.vmap(operator)(unit), np.float64).reshape(size, -1).T
        b, means = a / 2, np.asarray(self.means).reshape(-1, size)
        residual = np.asarray(y, np.float64).ravel() - a @ np.full(size, 0.5)
        log_weights, gains = [], []
        for weight, mean, covariance in zip(self.weights, means, self.covariances):
            covariance = covariance * np.eye(size) if covariance.ndim == 0 else covariance
            inner = b @ covariance @ b.T + sigma**2 * np.eye(len(b))
            gains.append(np.linalg.solve(inner, b @ covariance).T)
            innovation = residual - b @ mean
            fit = innovation @ np.linalg.solve(inner, innovation) + np.linalg.slogdet(inner)[1]
            log_weights.append(np.log(weight) - 0.5 * fit)
        chances = np.exp(log_weights - np.max(log_weights))
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        chosen = rng.choice(len(means), size=n, p=chances / chances.sum())
        draws = []
        for k in chosen:  # Matheron's rule: a draw of the component, moved by what it misses of y
            eps = np.sqrt(self.eigenvalues[k]) * rng.standard_normal(size)
            x = means[k] + (eps if self.eigenvectors is None else self.eigenvectors[k] @ eps)
            missed = residual - b @ x - sigma * rng.standard_normal(len(b))
            draws.append(x + gains[k] @ missed)
        return np.stack(draws).reshape(n, *self.shape)


@pytree
class MixtureCovariance:
    """Cov[x₀ | x_t] of a `GaussianMixture`: within the components and between them."""

    prior: GaussianMixture
    stationary = False

    def at(self, x_t, at: Level | Any, x0_hat=None) -> "Dense | Spiked":
        """At x_t [H, W, C] and a level, or its ᾱ."""
        responsibility, each, left = self.prior._given(x_t, Level.of(at))
        between = jnp.sqrt(responsibility)[:, None] * (each - responsibility @ each)
        if self.prior.eigenvectors is None:
            return Spiked(responsibility @ left[:, 0], between)
        vectors = jnp.asarray(self.prior.eigenvectors, x_t.dtype)
        within = jnp.einsum("k,kde,ke,kfe->df", responsibility, vectors, left, vectors)
        return Dense(within + between.T @ between)

    def check(self, denoiser) -> None:
        """Raises ValueError where it is not this prior's own."""
        if denoiser.shape != self.prior.shape:
            raise ValueError(
                f"covariance: of a mixture of images {list(self.prior.shape)}, the denoiser's differ"
            )


@pytree
class Dense:
    """N(0, Σ) with a matrix Σ [D, D] over the pixels of an image."""

    matrix: Array

    def apply(self, v):
        """Σv of v [H, W, C]."""
        return (self.matrix @ v.ravel()).reshape(v.shape)

    def draw(self, eps):
        """Σ^½ε."""
        values, vectors = jnp.linalg.eigh(self.matrix)
        scaled = jnp.sqrt(jnp.maximum(values, 0)) * (vectors.T @ eps.ravel())
        return (vectors @ scaled).reshape(eps.shape)


@pytree
class Spiked:
    """N(0, vI + UᵀU), U [K, D]: a variance v in every direction, and more in at most K of them."""

    variance: Number
    spikes: Array

    def apply(self, v):
        """Σv of v [H, W, C]."""
        flat = v.ravel()
        return (self.variance * flat + (self.spikes @ flat) @ self.spikes).reshape(v.shape)

    def draw(self, eps):
        """Σ^½ε, from the eigenvectors of the small UUᵀ."""
        values, vectors = jnp.linalg.eigh(self.spikes @ self.spikes.T)
        values = jnp.maximum(values, jnp.finfo(values.dtype).eps * values[-1])
        directions = vectors.T @ self.spikes / jnp.sqrt(jnp.where(values > 0, values, 1))[:, None]
        more = jnp.sqrt(self.variance + values) - jnp.sqrt(self.variance)
        flat = eps.ravel()
        drawn = jnp.sqrt(self.variance) * flat + (more * (directions @ flat)) @ directions
        return drawn.reshape(eps.shape)


def _circulant(spectrum) -> np.ndarray:
    """F* diag(spectrum) F of one channel, dense."""
    f2 = np.kron(*(np.fft.fft(np.eye(s), norm="ortho") for s in spectrum.shape))
    return (f2.conj().T @ np.diag(spectrum.ravel()) @ f2).real
