"""An observation is an operator, a measurement and a noise: of states, of any kind, of one's own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiff as jd
from jaxdiff.noise import Noise
from jaxdiff.observation import Observation
from jaxdiff.operators import Affine, Blur, Crop, Grey, Mask, Scale
from tests.test_samplers import KEY, LINEAR_ONLY, Toy, make

SCHEDULE = jd.Schedule.from_config()
RNG = np.random.default_rng(0)


DECODED = {
    "blur": lambda: Blur(RNG.random((3, 5)), (8, 8)),
    "mask": lambda: Mask(RNG.random((8, 8)) < 0.5),
    "crop-of-blur": lambda: Crop(1) @ Blur(RNG.random((3, 3)), (8, 8)),
    "grey-of-mask": lambda: Grey() @ Mask(RNG.random((8, 8)) < 0.5),
    "blur-of-blur": lambda: Blur(RNG.random((3, 3)), (8, 8)) @ Blur(RNG.random((2, 2)), (8, 8)),
    "scale": lambda: Scale(0.7),
}


@pytest.fixture(params=DECODED)
def observation(request, x64):
    operator = DECODED[request.param]()
    x = RNG.random((8, 8, 3))
    y = np.asarray(operator(x)) + 0.05
    return Observation(operator, operator.project(y), jd.noise.Gaussian(0.2))


def test_an_observation_of_states_is_that_of_images(observation):
    """Through any affine decoder: residuals, likelihoods, and the solve in the states' own units."""
    decode = Affine(0.3, 0.6)
    seen = observation @ decode
    state = jnp.asarray(RNG.standard_normal((8, 8, 3)))
    np.testing.assert_allclose(
        seen.residual(state), observation.residual(decode(state)), atol=1e-12
    )
    np.testing.assert_allclose(seen.log_prob(state), observation.log_prob(decode(state)))
    residual = seen.residual(state)
    ours, _ = seen.solve(residual, 0.5)
    theirs, _ = observation.solve(residual, 0.5 * 0.3**2)
    np.testing.assert_allclose(ours, 0.3 * theirs, atol=1e-9)


def test_prox_is_the_minimum(observation):
    """Where the gradient of −log p(y | z) + ‖z − x‖²/(2v) is zero."""
    x, variance = jnp.asarray(RNG.standard_normal((8, 8, 3))), 0.3
    seen = observation @ Affine(0.5, 0.5)
    z, _ = seen.prox(x, variance)
    gradient = jax.grad(lambda z: -seen.log_prob(z) + jnp.sum((z - x) ** 2) / (2 * variance))(z)
    assert float(jnp.abs(gradient).max()) < 1e-7


def test_factors_are_the_operator(observation):
    """P F⁻¹ diag(K) F is the linear part of the observation."""
    from jaxdiff.linalg.fields import filtered

    linear = (observation @ Affine(0.5, 0.5)).operator.linear
    outer, response = linear.factors(jnp.float64)
    x = jnp.asarray(RNG.standard_normal((8, 8, 3)))
    eye = jnp.eye(3) * jnp.broadcast_to(response, (8, 5, 1))[..., None]
    after = filtered(eye, x)
    np.testing.assert_allclose(after if outer is None else outer(after), linear(x), atol=1e-12)


@jd.pytree
class Square(jd.operators.Operator):
    shape = (8, 8)

    def __call__(self, x):
        return x**2


@pytest.mark.parametrize("name", LINEAR_ONLY)
def test_a_nonlinear_operator_is_told_what_takes_it(name):
    sampler = make(name)
    for operator in (Square(), lambda x: x**2, Grey() @ Square()):
        with pytest.raises(TypeError, match=r"not linear.*DPS takes any"):
            dataclasses.replace(sampler, operator=operator, y=np.asarray(operator(sampler.y)))


def test_dps_takes_any_differentiable_operator():
    y = np.full((8, 8, 3), 0.25, np.float32)
    toy = Toy(np.float32(1))
    known, steps = jd.operators.Mask(np.eye(8) < 1), SCHEDULE.steps(3)
    images = [
        jd.sample(jd.DPS(toy, operator, np.asarray(known(y))), steps, key=KEY)
        for operator in (known @ Square(), lambda x: known(x**2))
    ]
    np.testing.assert_allclose(*images, atol=1e-6)


@jd.pytree
class Laplace(Noise):
    scale: float

    def log_prob(self, y, mean):
        return -jnp.abs(y - mean).sum() / self.scale

    def draw(self, key, mean):
        return mean + self.scale * jax.random.laplace(key, mean.shape, mean.dtype)

    def residual(self, y, mean):
        return jnp.sign(y - mean)


def test_a_noise_of_ones_own():
    """DPS takes it; what needs a Gaussian says so; a float is one."""
    y = np.full((8, 8, 3), 0.5, np.float32)
    toy, blur, steps = Toy(np.float32(1)), Blur(np.ones((3, 3)) / 9, (8, 8)), SCHEDULE.steps(3)
    plain = jd.sample(jd.DPS(toy, blur, y), steps, key=KEY)
    other = jd.sample(jd.DPS(toy, blur, y, sigma=Laplace(0.1)), steps, key=KEY)
    assert float(jnp.abs(plain - other).max()) > 1e-4
    with pytest.raises(TypeError, match="Gaussian noise, got Laplace"):
        jd.PiGDM(toy, blur, y, Laplace(0.1))
    given = [
        jd.sample(jd.PiGDM(toy, blur, y, s), steps, key=KEY) for s in (0.1, jd.noise.Gaussian(0.1))
    ]
    np.testing.assert_array_equal(*given)
    drawn = jd.noise.Gaussian(0.1).draw(KEY, jnp.zeros(10_000))
    assert float(drawn.std()) == pytest.approx(0.1, rel=0.05)
