"""Blind: expectation and maximisation against closed forms, and that together they find a kernel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiff as jd
from benchmarks.blind import aligned, similarity
from jaxdiff import data, metrics
from jaxdiff.linalg.fields import Stationary
from jaxdiff.operators import Blur, Crop, Grey, UnknownBlur
from jaxdiff.operators.unknown_blur import separated, unknown, with_kernel
from jaxdiff.samplers.kernel_step import centred, moments, normal_equations, simplex_step
from jaxdiff.samplers.system import System

RNG = np.random.default_rng(0)
SIZE, SHAPE = 3, (8, 8)


def circulant(kernel):
    """The matrix [64, 64] of a circular blur of 8×8."""
    blur = UnknownBlur(SIZE).known(kernel, SHAPE)
    return np.stack([np.ravel(blur(e.reshape(*SHAPE, 1))) for e in np.eye(64)], 1)


def test_expectation_and_maximisation_are_the_closed_forms_and_the_likelihood_never_falls(x64):
    """Gaussian image, Gaussian kernel, 8×8, dense matrices; the mean over the image tells no kernel."""
    spectrum = RNG.uniform(0.01, 1, (8, 5))
    spectrum = (spectrum + np.roll(spectrum[::-1], 1, 0)) / 2  # of a real image
    prior = Stationary(jnp.asarray(spectrum)[..., None, None])
    dense = np.stack([np.ravel(prior.apply(e.reshape(8, 8, 1))) for e in np.eye(64)], 1)
    true = RNG.random((SIZE, SIZE))
    s2, precision, mean_kernel = 0.01, 5.0, np.full((SIZE, SIZE), 1 / 9)
    x = np.asarray(prior.draw(RNG.standard_normal((8, 8, 1))))
    y = np.asarray(UnknownBlur(SIZE).known(true / true.sum(), SHAPE)(x))
    y = y + s2**0.5 * RNG.standard_normal(y.shape)
    away = np.eye(64) - 1 / 64  # takes the mean off
    shifts = np.stack([circulant(e.reshape(SIZE, SIZE)) for e in np.eye(SIZE**2)])

    def likelihood(kernel):  # log p(y, k) without y's mean
        a = circulant(kernel)
        covariance = away @ a @ dense @ a.T @ away + s2 * away + np.ones((64, 64)) / 64
        v = away @ y.ravel()
        prior_of_k = -precision / 2 / s2 * np.sum((kernel - mean_kernel) ** 2)
        return (
            prior_of_k - (v @ np.linalg.solve(covariance, v) + np.linalg.slogdet(covariance)[1]) / 2
        )

    kernel, found = mean_kernel, []
    for _ in range(12):
        system = System(UnknownBlur(SIZE).known(kernel, SHAPE), prior, jnp.asarray(s2), (8, 8, 1))
        mean, covariance = system.conditioned(jnp.asarray(y))
        a = circulant(kernel)
        gain = dense @ a.T @ np.linalg.inv(a @ dense @ a.T + s2 * np.eye(64))
        np.testing.assert_allclose(np.ravel(mean), gain @ y.ravel(), atol=1e-10)
        power, cross = moments(mean, jnp.asarray(y), covariance)
        m = away @ gain @ y.ravel()
        second = np.outer(m, m) + away @ (dense - gain @ a @ dense) @ away
        normal = np.einsum("iab,jac,bc->ij", shifts, shifts, second)
        right = shifts @ m @ y.ravel() + precision * mean_kernel.ravel()
        expected = np.linalg.solve(normal + precision * np.eye(SIZE**2), right)
        ours, b = normal_equations(power, cross, SIZE)
        np.testing.assert_allclose(ours, normal, atol=1e-9)
        b = np.asarray(b) + precision * mean_kernel.ravel()
        kernel = np.linalg.solve(ours + precision * np.eye(SIZE**2), b).reshape(SIZE, SIZE)
        np.testing.assert_allclose(kernel.ravel(), expected, atol=1e-9)
        found.append(likelihood(kernel))
    assert found[0] > likelihood(mean_kernel) and min(np.diff(found)) >= -1e-9
    assert found[-1] - found[0] > 0.1


def test_the_kernel_of_a_known_image_is_found(x64):
    kernel = np.asarray(data.motion_kernel(9, seed=1))
    x = jnp.asarray(data.example())
    y = Blur(kernel, (64, 64))(x)
    power, cross = moments(x, y)
    found = simplex_step(power, cross, jnp.asarray(UnknownBlur(9).guess), 0.0, iterations=4000)
    assert found.min() >= 0 and float(found.sum()) == pytest.approx(1, abs=1e-9)
    np.testing.assert_allclose(found, kernel, atol=2e-3)


def test_centred_moves_image_and_kernel_together(x64):
    kernel = np.zeros((7, 7))
    kernel[4, 2] = 1  # of centre of mass (1, −1)
    x = jnp.asarray(data.example(32), jnp.float64)
    image, middle = centred(x, jnp.asarray(kernel))
    np.testing.assert_allclose(image, jnp.roll(x, (1, -1), (0, 1)), atol=1e-10)
    np.testing.assert_allclose(middle, np.eye(7)[3][:, None] * np.eye(7)[3], atol=1e-10)


def test_a_camera_around_an_unknown_blur():
    kernel, x = np.asarray(data.motion_kernel(5, 0)), RNG.random((16, 16, 3))
    camera = Grey() @ (Crop(2) @ UnknownBlur(5))
    outer, blur = separated(camera, kernel, (16, 16))
    expected = Grey()(Crop(2)(Blur(kernel, (16, 16))(x)))
    np.testing.assert_allclose(outer(blur(x)), expected, atol=1e-6)
    np.testing.assert_allclose(with_kernel(camera, kernel, (16, 16))(x), expected, atol=1e-6)
    assert unknown(camera).size == 5 and unknown(Crop(2)) is None


def measured(seed, sigma):
    face = list(data.faces().values())[seed]
    kernel = np.asarray(data.motion_kernel(17, seed=seed))
    noise = np.random.default_rng(seed).standard_normal(face.shape)
    return face, kernel, np.float32(Blur(kernel, (64, 64))(face) + sigma * noise)


def test_a_blur_is_found_where_one_image_would_say_there_is_none(faces64):
    face, kernel, y = measured(0, 5 / 255)
    sampler = jd.Blind(
        jd.Denoiser(*faces64), UnknownBlur(17), y, 5 / 255, jd.SpectralCovariance.load("faces64")
    )
    found = {}
    for draw in (True, False):
        one = jd.samplers.Blind(**{**vars(sampler), "draw": draw})
        image, kernels = jd.sample(
            one, one.steps(124), key=jax.random.key(0), keep=lambda x, info: info["kernel"]
        )
        found[draw] = similarity(kernels[-1, 0], kernel)
        if draw:
            better = metrics.psnr(aligned(np.asarray(image[0]), face), face) - metrics.psnr(y, face)
    print(found, better)
    assert found[True] >= 0.85 and found[True] > found[False] + 0.15
    assert better > 5


@pytest.mark.slow
def test_a_sharp_photograph_stays_sharp(faces64):
    face = next(iter(data.faces().values()))
    y = np.float32(face + 5 / 255 * np.random.default_rng(0).standard_normal(face.shape))
    found = jd.restore(y, UnknownBlur(17), 5 / 255, prior="faces64", n=1)
    assert similarity(found.kernels[0], np.ones((1, 1))) >= 0.9


def test_one_line_from_a_measurement_of_unknown_border(tiny):
    y = np.float32(RNG.random((40, 44, 3)))
    found = jd.restore(y, Crop(3) @ UnknownBlur(7), 0.1, prior=tiny, n=2, steps=3)
    assert found.sampler == "blind" and found.draws.shape == (2, 46, 50, 3)
    assert found.kernels.shape == (2, 7, 7) and found.kept is None
    np.testing.assert_allclose(np.sum(found.kernels, (1, 2)), 1, atol=1e-5)
    several = jd.restore(np.stack([y, y]), Crop(3) @ UnknownBlur(7), 0.1, prior=tiny, n=2, steps=3)
    assert several.kernels.shape == (2, 2, 7, 7)


@pytest.mark.parametrize("size", [4, 1, 0, True, "7", 2.5])
def test_bad_sizes(size):
    with pytest.raises(ValueError, match="size: expected an odd number"):
        UnknownBlur(size)


def test_what_does_not_go_together():
    prior = jd.priors.Gaussian(np.full(SHAPE, 0.1), jd.Schedule.from_config())
    y = np.full((8, 8, 1), 0.5, np.float32)
    with pytest.raises(TypeError, match="PiGDM needs the blur's kernel"):
        jd.PiGDM(prior, UnknownBlur(3), y, 0.1)
    with pytest.raises(TypeError, match="DPS needs the blur's kernel"):
        jd.DPS(prior, UnknownBlur(3), y)
    blind = (prior, UnknownBlur(3), y, 0.1, prior.covariance)
    with pytest.raises(TypeError, match="Blind takes jd"):
        jd.Blind(prior, Crop(1), *blind[2:])
    with pytest.raises(ValueError, match="Blind divides by it"):
        jd.Blind(*blind[:3], 0, prior.covariance)
    with pytest.raises(ValueError, match="sigma: Blind takes one number"):
        jd.Blind(*blind[:3], jd.noise.Gaussian(np.full((8, 8, 1), 0.1)), prior.covariance)
    with pytest.raises(ValueError, match="size: a kernel of 9×9 is larger"):
        jd.Blind(prior, UnknownBlur(9), *blind[2:])
    for wrong in ({"particles": 0}, {"anneal": -1}, {"ridge": np.nan}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            jd.Blind(*blind, **wrong)
