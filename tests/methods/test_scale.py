"""The scale of a covariance that a residual asks for: right on average, and whatever the noise is said to be."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiff as jd
from jaxdiff.linalg.fields import Modulated
from jaxdiff.operators import Blur, Downsample, Mask
from jaxdiff.samplers.system import System

SIZE, SIGMA = (32, 32), 0.1
POWER = 0.02 / (0.05 + np.hypot(np.fft.fftfreq(32)[:, None], np.fft.fftfreq(32))) ** 2
PRIOR = jd.priors.Gaussian(POWER, jd.Schedule.from_config())
MATRICES = (POWER[:, :17, None, None] * np.eye(1)).astype("f")
UNEVEN = np.exp(0.5 * np.random.default_rng(3).standard_normal((*SIZE, 1))).astype("f")
CAMERAS = {
    "blur": Blur(jd.data.gaussian_kernel(5, 1.0), SIZE),
    "blur-zero": Blur(jd.data.gaussian_kernel(5, 1.0), SIZE, boundary="zero"),
    "mask": Mask(np.random.default_rng(0).random(SIZE) < 0.5),
    "downsample": Downsample(2),
}


@jax.jit
def scales(operator, covariance, c, b, keys):
    """Of residuals of N(0, cBΣBᵀ + bσ²I)."""

    def one(key):
        system = System(operator, covariance, jnp.float32(SIGMA**2), (*SIZE, 1))
        shape = jnp.zeros(jax.eval_shape(operator, jnp.zeros((*SIZE, 1))).shape)
        (error, noise), others = (system.draw(k, shape) for k in jax.random.split(key))
        residual = operator(jnp.sqrt(c) * error) + jnp.sqrt(b) * noise
        return system.scale(residual, *others)[:2]

    return jax.vmap(one)(keys)


@pytest.mark.parametrize("name", CAMERAS)
def test_a_covariance_that_is_right_is_left_alone(name):
    keys = jax.random.split(jax.random.key(0), 400)
    c, misfit = scales(CAMERAS[name], Modulated(UNEVEN, MATRICES), 1.0, 1.0, keys)
    for found in (c, misfit):
        assert abs(found.mean() - 1) <= 4 * found.std() / 20 + 0.01, found.mean()


@pytest.mark.parametrize(("c", "b"), [(1.6, 1.0), (0.6, 1.0), (1.0, 1.4), (1.0, 0.7)])
@pytest.mark.parametrize("name", ["blur", "mask"])
def test_it_follows_the_image_and_not_the_noise(name, c, b):
    flat = Modulated(np.ones((*SIZE, 1), "f"), MATRICES)
    found, _ = scales(CAMERAS[name], flat, c, b, jax.random.split(jax.random.key(1), 400))
    # The step from 1 is linear: of a residual's expected energies, by the eigenvalues of S.
    unit = np.eye(SIZE[0] * SIZE[1], dtype="f").reshape(-1, *SIZE, 1)
    forward = np.asarray(jax.vmap(CAMERAS[name])(unit)).reshape(len(unit), -1).T
    sigma = np.asarray(jax.vmap(flat.apply)(unit)).reshape(len(unit), -1)
    known = np.abs(forward).sum(1) > 0
    power = np.linalg.eigvalsh((forward @ sigma @ forward.T)[np.ix_(known, known)])
    s = power / (power + SIGMA**2)
    information = np.array(
        [[s @ s, s @ (1 - s)], [s @ (1 - s), (1 - s) @ (1 - s)]], dtype=np.float64
    )
    expected = np.linalg.solve(information + 4 * np.eye(2), information @ [c - 1, b - 1])[0]
    assert abs(found.mean() - 1 - expected) <= 4 * found.std() / 20 + 0.02


@jd.pytree
class TooSure:
    """The covariance of a prior, said to be a quarter of what it is."""

    covariance: Any
    stationary = False

    def at(self, x_t, at, x0_hat=None):
        even = jnp.ones((*x_t.shape[:2], 1), x_t.dtype)
        return Modulated(even, self.covariance.at(x_t, at).matrices / 4)

    def check(self, denoiser):
        pass


def test_a_sampler_that_is_too_sure_is_mended():
    camera, sigma = CAMERAS["mask"], 0.02
    rng = np.random.default_rng(0)
    x = np.fft.ifft2(np.fft.fft2(rng.standard_normal((4, *SIZE))) * np.sqrt(POWER)).real
    clean = np.asarray(camera((x[..., None] + 1) / 2))
    y = np.asarray(camera.project(clean + sigma * rng.standard_normal(clean.shape)), "f")
    deviations = {}
    for name, covariance, scaled in (
        ("right", PRIOR.covariance, True),
        ("mended", TooSure(PRIOR.covariance), True),
        ("too sure", TooSure(PRIOR.covariance), False),
    ):
        sampler = jd.SpectralPosterior(PRIOR, camera, y, sigma, covariance, scaled=scaled)
        found = jd.sample(sampler, PRIOR.schedule.steps(10), key=jax.random.key(0), n=16)
        deviations[name] = float(np.asarray(found).reshape(4, 16, *SIZE).std(1).mean())
    lost = deviations["right"] - deviations["too sure"]
    assert lost > 0.1 * deviations["right"], deviations
    assert abs(deviations["right"] - deviations["mended"]) < 0.35 * lost, deviations
