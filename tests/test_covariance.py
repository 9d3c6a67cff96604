"""A deviation that follows the contrast of x̂₀: its matrix, its measurement, and what it conditions."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxdiff as jd
from jaxdiff.commands.evaluate import evaluate_folder
from jaxdiff.linalg.fields import Modulated, contrast
from jaxdiff.priors.tiled import of_size
from jaxdiff.samplers import Draws
from jaxdiff.samplers.spectral import SpectralPosterior
from jaxdiff.util.pytree import pytree

SCHEDULE = jd.Schedule.from_config()
LEVELS = np.array([0, 500, 999])


@pytree
class Fixed:
    """A denoiser that always answers the same picture [H, W, C], in [-1, 1]."""

    answer: Any
    schedule: Any

    @property
    def shape(self):
        return self.answer.shape

    def __call__(self, x_t, t):
        return jnp.broadcast_to(jnp.asarray(self.answer, x_t.dtype), x_t.shape)


def half_busy(size=16):
    """A picture whose right half is texture and whose left half is nearly flat."""
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (size, size, 1))
    return noise * np.where(np.arange(size) < size // 2, 0.02, 1)[None, :, None]


def matrix(apply, shape):
    size = int(np.prod(shape))
    return np.asarray(jax.vmap(apply)(jnp.eye(size).reshape(size, *shape)).reshape(size, size)).T


def table(rings=12, exponent=0.3):
    value = np.broadcast_to(0.1 / (1 + np.arange(rings))[:, None, None], (3, rings, 1, 1))
    modulation = np.array([[exponent, -4.0]] * 3)
    a = SCHEDULE.alphas_cumprod[LEVELS]
    return jd.SpectralCovariance(value, LEVELS, a, 1 / 16, modulation)


def test_modulated_is_a_covariance(x64):
    """MΣM is symmetric and positive, `draw` is a root of it, and M = 1 leaves Σ."""
    x = half_busy(8)
    stationary = table().at(x, 0.5)
    modulated = table().at(x, 0.5, x)
    assert isinstance(modulated, Modulated)
    m = np.diag(np.exp(0.15 * (np.asarray(contrast(x)).ravel() + 4)))
    found = matrix(modulated.apply, x.shape)
    np.testing.assert_allclose(found, m @ matrix(stationary.apply, x.shape) @ m, atol=1e-12)
    np.testing.assert_allclose(found, found.T, atol=1e-12)
    assert np.linalg.eigvalsh(found).min() > 0
    root = matrix(modulated.draw, x.shape)
    np.testing.assert_allclose(root @ root.T, found, atol=1e-12)
    same = Modulated(jnp.ones((8, 8, 1)), stationary.matrices)
    np.testing.assert_allclose(same.apply(x), stationary.apply(x), atol=1e-14)


def test_contrast_by_hand():
    """A ramp of slope 0.1 a pixel in all colours, over two pixels; its border is half as steep."""
    ramp = np.broadcast_to(0.1 * np.arange(12)[:, None], (12, 12))[..., None] * np.ones(3)
    found = np.asarray(contrast(jnp.asarray(ramp)))
    np.testing.assert_allclose(found[4:8], np.log(0.2**2 + 1e-4), rtol=1e-4)
    np.testing.assert_allclose(np.asarray(contrast(jnp.zeros((5, 5, 3)))), np.log(1e-4), rtol=1e-4)
    assert (found[0] < found[5]).all()


def test_estimate_finds_the_exponent():
    """Errors that were given a deviation of g^(γ/2) are found to have it, and a Σ that is white."""
    x0_hat, exponent, spread = half_busy(), 0.4, 0.05
    log_g = np.asarray(contrast(x0_hat), np.float64)
    m = np.exp(exponent / 2 * (log_g - log_g.mean()))[..., None]
    error = spread * m * np.random.default_rng(1).standard_normal((128, 16, 16, 1))
    images = ((x0_hat + error + 1) / 2).astype("f")
    assert 0 <= images.min() and images.max() <= 1
    denoiser = Fixed(x0_hat.astype("f"), SCHEDULE)
    found = jd.SpectralCovariance.estimate(denoiser, images, key=jax.random.key(0), levels=3)
    np.testing.assert_allclose(found.modulation[:, 0], exponent, atol=0.051)
    np.testing.assert_allclose(found.modulation[:, 1], log_g.mean(), rtol=1e-3)
    white = found.table[..., 0, 0] * (1 - found.alphas_cumprod[:, None])
    np.testing.assert_allclose(white[:, 1:], spread**2, rtol=0.15)


@pytest.mark.parametrize("crop", [0, 2])
def test_one_step_is_the_conditioned_gaussian(crop, x64, tmp_path):
    """From noise to the image at once: x̂₀ + ΣBᵀ(BΣBᵀ + σ²I)⁻¹(y − Ax̂₀), Σ dense; and its spread."""
    x0_hat, sigma = half_busy(8), 0.1
    table().save(tmp_path)
    covariance = jd.SpectralCovariance.load(tmp_path)
    assert not covariance.stationary
    blur = jd.operators.Blur(np.ones((3, 2)) / 6, (8, 8))
    operator = jd.operators.Crop(crop) @ blur if crop else blur
    y = np.asarray(operator(x0_hat / 2 + 0.6))
    denoiser = Fixed(x0_hat, SCHEDULE)
    c = jax.tree.map(lambda a: a[0], SCHEDULE.steps(1, "trailing"))
    prior = matrix(covariance.at(x0_hat, c.alphas_cumprod, x0_hat).apply, x0_hat.shape)
    b = np.asarray(jax.vmap(operator)(jnp.eye(64).reshape(64, 8, 8, 1)).reshape(64, -1)).T / 2
    gain = np.linalg.solve(b @ prior @ b.T + sigma**2 * np.eye(len(b)), b @ prior).T
    residual = (y - np.asarray(operator((x0_hat + 1) / 2))).ravel()
    zero, key = jnp.zeros_like(x0_hat), jax.random.key(0)

    def draws(draw, n):
        sampler = SpectralPosterior(denoiser, operator, y, sigma, covariance, draw, scaled=False)
        keys = jax.random.split(key, n)
        found = jax.jit(jax.vmap(lambda k: sampler.step(zero, c, Draws(zero, k))[0]))(keys)
        return np.asarray(found).reshape(n, -1)

    mean = x0_hat.ravel() + gain @ residual
    np.testing.assert_allclose(draws(False, 1)[0], mean, atol=1e-9)
    many = draws(True, 4000)
    left = prior - gain @ b @ prior
    np.testing.assert_allclose(many.mean(0), mean, atol=5 * np.sqrt(left.max() / 4000))
    np.testing.assert_allclose(many.var(0) / np.diag(left), 1, atol=0.15)

    # Scaled: Matheron's rule of cΣ, from the same numbers.
    sampler = SpectralPosterior(denoiser, operator, y, sigma, covariance)
    found, info = sampler.step(zero, c, Draws(zero, key))
    first, second = jax.random.split(key)
    eps = jax.random.normal(first, zero.shape, zero.dtype)
    scale = float(info["scale"])
    error = np.sqrt(scale) * np.ravel(covariance.at(x0_hat, c.alphas_cumprod, x0_hat).draw(eps))
    noise = sigma * np.ravel(jax.random.normal(second, y.shape, zero.dtype))
    prior = scale * prior
    gain = np.linalg.solve(b @ prior @ b.T + sigma**2 * np.eye(len(b)), b @ prior).T
    assert abs(scale - 1) > 0.01
    expected = x0_hat.ravel() + error + gain @ (residual - b @ error - noise)
    np.testing.assert_allclose(np.ravel(found), expected, atol=1e-8)


def test_a_table_of_other_weights(tiny, tmp_path):
    """It is refused by name beside a checkpoint that was trained on; measured again, it is not."""
    network, schedule = jd.load(tiny)
    graph, state = nnx.split(network)
    further = nnx.merge(graph, jax.tree.map(lambda w: w * 1.01, state))
    jd.save(tmp_path, further, schedule)
    unknown = jd.SpectralCovariance.load(tiny)
    ours = dataclasses.replace(unknown, weights=jd.Denoiser(further, schedule).digest)
    stale = dataclasses.replace(unknown, weights=jd.Denoiser(network, schedule).digest)
    y, blur = np.full((64, 64, 3), 0.5), jd.operators.Blur(np.ones((3, 3)) / 9, (64, 64))
    for kept in (unknown, ours):
        kept.save(tmp_path)
        assert jd.restore(y, blur, 0.1, prior=tmp_path, n=1, steps=2).sampler == "spectral"
    stale.save(tmp_path)
    calls = [
        lambda: jd.restore(y, blur, 0.1, prior=tmp_path, n=1, steps=2),
        lambda: jd.DDPM(jd.Denoiser(further, schedule), jd.SpectralCovariance.load(tmp_path)),
        lambda: evaluate_folder(None, str(tmp_path), None, [2], tmp_path / "out"),
        lambda: evaluate_folder(None, str(tmp_path), ["dps", "spectral"], [2], tmp_path / "out"),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"spectral_covariance\.safetensors.*other weights"):
            call()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("spacing", [0, -1 / 16, np.nan, np.inf, 1e-300, 2.0, np.ones(2)]),
        ("table", [np.zeros((3, 12, 1, 1)), -table().table, table().table * np.nan]),
        ("modulation", [np.full((3, 2), np.inf), np.zeros((2, 2)), np.zeros(3)]),
    ],
)
def test_tables_that_are_none(field, values):
    for value in values:
        with pytest.raises(ValueError, match=f"{field}: "):
            dataclasses.replace(table(), **{field: value})


def test_a_table_knows_what_it_was_measured_on(tiny):
    denoiser = jd.Denoiser(*jd.load(tiny))
    images = np.full((2, 16, 16, 3), 0.5, np.float32)
    with pytest.warns(UserWarning, match="not stable"):
        found = jd.SpectralCovariance.estimate(denoiser, images, key=jax.random.key(0), levels=2)
    np.testing.assert_array_equal(found.weights, denoiser.digest)
    for side in (64, 70, 500):  # as it is, padded, in windows
        assert of_size(denoiser, (side, side)).digest is denoiser.digest
    with pytest.raises(ValueError, match="weights: expected"):
        dataclasses.replace(found, weights=np.zeros(3))
