"""The spectral sampler where a camera is not linear, or a noise not Gaussian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiff as jd
from jaxdiff.noise import Gaussian, Laplace, Poisson, PoissonGaussian, Quantised
from jaxdiff.observation import Observation
from jaxdiff.operators import HDR, Blur, Gamma, Mask, Saturate, Scale
from jaxdiff.operators.base import Function
from jaxdiff.samplers.linearised import linearised
from tests.test_samplers import KEY

RNG = np.random.default_rng(0)
X, Y = RNG.random((2, 8, 8, 1))
HALF = 0.1 * RNG.standard_normal((2, 8, 8, 1))
ERRORS = np.concatenate([HALF, -HALF])
BLUR = Blur(np.ones((3, 3)) / 9, (8, 8))


def unneeded():
    raise AssertionError("a linear camera asks for no draws")


def test_a_linear_camera_and_gaussian_noise_stay_as_they_are(x64):
    found = linearised(Observation(BLUR, Y, Gaussian(0.1)), X, unneeded)
    assert found.operator is BLUR and found.sigma == 0.1
    np.testing.assert_array_equal(found.y, Y - BLUR(X))


def test_a_function_that_is_straight_is_found_to_be(x64):
    """Of the same slope, adjoint and residual as the operator, and nothing more in the noise."""
    seen = Observation(Function(None, lambda x: BLUR(x) + 0.2), Y, Gaussian(0.1))
    found = linearised(seen, X, lambda: ERRORS)
    assert float(found.sigma) == pytest.approx(0.1, rel=1e-9)
    for mine, expected in (
        (found.operator(HALF[0]), BLUR(HALF[0])),
        (found.operator.adjoint(HALF[0]), BLUR.adjoint(HALF[0])),
        (found.y, Y - BLUR(X) - 0.2),
    ):
        np.testing.assert_allclose(mine, expected, atol=1e-12)


def test_a_squares_slope_and_what_is_left_of_it(x64):
    """z² at z = x + e: the mean x² + E e², the slope 2x, and Var e² more noise, all by pixel."""
    e2 = HALF**2
    found = linearised(
        Observation(Function(None, lambda x: x**2), Y, Gaussian(0.1)), X, lambda: ERRORS
    )
    variance = 0.01 + e2.var(0)
    weights = float(found.sigma) / np.sqrt(variance)
    assert float(found.sigma) == pytest.approx(np.mean(1 / variance) ** -0.5)
    np.testing.assert_allclose(found.y, weights * (Y - X**2 - e2.mean(0)), atol=1e-12)
    np.testing.assert_allclose(found.operator(Y), weights * 2 * X * Y, atol=1e-12)
    np.testing.assert_allclose(found.operator.adjoint(Y), weights * 2 * X * Y, atol=1e-12)


def test_another_noise_is_the_gaussian_of_its_variance_at_the_mean(x64):
    """Of a linear camera nothing is drawn; what a mask hides stays hidden."""
    operator = Mask(np.eye(8) < 1) @ BLUR
    found = linearised(Observation(operator, Y, Poisson(50)), X, unneeded)
    mean = operator(X)
    weights = float(found.sigma) / np.sqrt(np.maximum(mean, 1 / 50) / 50)
    np.testing.assert_allclose(found.y, weights * (operator.project(Y) - mean), atol=1e-12)
    np.testing.assert_allclose(found.operator(Y), weights * operator(Y), atol=1e-12)
    assert not np.asarray(found.operator.project(Y))[np.eye(8) == 1].any()


CAMERAS = {
    "hdr": (HDR(2), Gaussian(0.05)),
    "saturate": (Saturate(1.5), Gaussian(0.05)),
    "gamma": (Gamma(2.2), Gaussian(0.05)),
    "function": (lambda x: jnp.tanh(3 * x - 1), Gaussian(0.05)),
    "poisson": (Scale(1.0), Poisson(100)),
    "poisson-gaussian-of-hdr": (HDR(1.5), PoissonGaussian(100, 0.05)),
    "laplace": (Scale(1.0), Laplace(0.1)),
    "quantised": (Scale(1.0), Quantised(8, 0.05)),
}


@pytest.mark.parametrize("name", CAMERAS)
def test_draws_are_those_of_the_posterior(name, x64):
    """Of 256 pixels of a white Gaussian prior, whose posteriors are known by quadrature.

    64 draws leave 0.125 of a posterior deviation in their mean.
    """
    operator, noise = CAMERAS[name]
    prior = jd.priors.Gaussian(np.full((16, 16), 0.1), jd.Schedule.from_config())
    truth = np.sqrt(0.1) * np.random.default_rng(0).standard_normal((16, 16, 1))
    y = np.asarray(noise.draw(jax.random.key(1), operator((truth + 1) / 2)))
    grid = np.linspace(-2, 2, 1001)
    level = operator((grid[:, None] + 1) / 2)
    by_pixel = jax.vmap(jax.vmap(noise.log_prob, (None, 0)), (0, None))
    log = np.asarray(by_pixel(y.reshape(-1, 1), jnp.asarray(level))) - grid**2 / 0.2
    weights = np.exp(log - log.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    mean = weights @ grid
    deviation = np.sqrt(weights @ grid**2 - mean**2)
    sampler = jd.SpectralPosterior(prior, operator, y, noise, prior.covariance)
    steps = prior.schedule.steps(50, spacing="trailing")
    draws = 2 * np.asarray(jd.sample(sampler, steps, key=KEY, n=64)).reshape(64, -1) - 1
    error = (draws.mean(0) - mean) / deviation
    # The Gaussian of Laplacian noise does not know that what is far off is more likely an outlier.
    assert np.sqrt(np.mean(error**2)) < (0.23 if name == "laplace" else 0.19)
    ratio = np.sqrt(draws.var(0, ddof=1).mean() / np.mean(deviation**2))
    assert ratio == pytest.approx(1, abs=0.035)


def test_a_noise_without_a_variance_is_told_what_takes_it():
    @jd.pytree
    class Cauchy(jd.noise.Noise):
        scale: float

        def log_prob(self, y, mean):
            return -jnp.log1p(((y - mean) / self.scale) ** 2).sum()

        def draw(self, key, mean):
            return mean + self.scale * jax.random.cauchy(key, mean.shape)

    prior = jd.priors.Gaussian(np.full((8, 8), 0.1), jd.Schedule.from_config())
    with pytest.raises(TypeError, match=r"Cauchy has no variance\(mean\).*DPS takes any"):
        jd.SpectralPosterior(prior, BLUR, Y, Cauchy(0.1), prior.covariance)
