"""How far a measurement is from what prior, camera and noise expect: 1 where they are right."""

import jax
import numpy as np
import pytest

import jaxdiff as jd
from jaxdiff.operators import Blur, Downsample, Mask

SIZE, SIGMA = (16, 16), 0.1
FREQUENCIES = np.hypot(np.fft.fftfreq(16)[:, None], np.fft.fftfreq(16))
POWER = 0.02 / (0.05 + FREQUENCIES) ** 2
PRIOR = jd.priors.Gaussian(POWER, jd.Schedule.from_config())
CAMERAS = {
    "blur": Blur(jd.data.gaussian_kernel(5, 1.0), SIZE),  # in closed form
    "blur-zero": Blur(jd.data.gaussian_kernel(5, 1.0), SIZE, boundary="zero"),
    "mask": Mask(np.random.default_rng(0).random(SIZE) < 0.5),
    "downsample": Downsample(2),
}


def images(count: int) -> np.ndarray:
    """Of the prior, in image units."""
    noise = np.random.default_rng(1).standard_normal((count, *SIZE))
    power = np.sqrt(POWER)
    states = np.fft.ifft2(np.fft.fft2(noise) * power).real
    return (states / 2 + 0.5)[..., None]


def misfits(camera, x, sigma, truly, draw=True) -> np.ndarray:
    """Of each measurement at each step."""
    clean = np.asarray(camera(x))
    y = clean + truly * np.random.default_rng(2).standard_normal(clean.shape)
    y = np.asarray(camera.project(y), np.float32)
    sampler = jd.SpectralPosterior(PRIOR, camera, y, sigma, PRIOR.covariance, draw=draw)
    steps = PRIOR.schedule.steps(4, "trailing")
    _, found = jd.sample(
        sampler, steps, key=jax.random.key(0), n=1, keep=lambda x, info: info["misfit"]
    )
    return np.asarray(found)[:, :, 0]


@pytest.mark.parametrize("draw", [True, False])
@pytest.mark.parametrize("name", CAMERAS)
def test_it_is_one_on_average_where_all_is_right(name, draw):
    found = misfits(CAMERAS[name], images(64), SIGMA, SIGMA, draw)
    each = found.std(1) / np.sqrt(found.shape[1])
    assert (np.abs(found.mean(1) - 1) <= 4 * each + 0.02).all(), found.mean(1)


@pytest.mark.parametrize("name", CAMERAS)
def test_it_is_larger_for_other_pictures_and_other_noise(name):
    x = images(32)
    strange = misfits(CAMERAS[name], 0.5 + 2 * (x - 0.5), SIGMA, SIGMA)
    noisy = misfits(CAMERAS[name], x, SIGMA, 2 * SIGMA)
    assert np.median(strange) > 2.5 and np.median(noisy) > 1.5
