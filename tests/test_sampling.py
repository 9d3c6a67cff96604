"""The loop itself, `jd.sample`: what a call may ask, what it refuses, in which numbers it runs."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxdiff as jd
from jaxdiff.util.pytree import replace_leaf
from tests.test_samplers import CONFIG, KEY, make


@pytest.fixture(scope="module")
def steps():
    return jd.Schedule.from_config().steps(6)


def test_more_draws_need_a_key(steps):
    """noise= gives x_T and z; the draw of x₀ for an operator without closed form is the key's."""
    sampler = make("spectral-masked")
    noise = np.random.default_rng(0).standard_normal((7, 1, 8, 8, 3)).astype("f")
    with pytest.raises(ValueError, match="draws more than noise="):
        jd.sample(sampler, steps, noise=noise)
    one, same, other = (
        jd.sample(sampler, steps, noise=noise, key=jax.random.key(k)) for k in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert float(jnp.abs(one - other).max()) > 1e-3


@pytest.mark.parametrize("camera", ["blur", "pixels"])
def test_samples_that_go_through_a_network_together_keep_their_bits(camera):
    """On a CPU those of faces64 do, of 64×64: here one, three, three of nine and eight of sixteen."""
    unet, schedule = jd.load("faces64")
    y = np.random.default_rng(0).random((64, 64, 3), "f")
    blur = jd.operators.Blur(np.ones((3, 3)) / 9, (64, 64))
    operator = blur if camera == "blur" else jd.operators.Affine(1.0, 0.0)
    sampler = jd.DPS(jd.Denoiser(unet, schedule), operator, y)
    alone = jd.sample(sampler, schedule.steps(2), key=KEY, n=1)
    # XLA's own transform rounds otherwise for several images in jax 0.12, and did not before.
    transform = partial(jnp.fft.rfft2, axes=(0, 1))
    three = jax.jit(jax.vmap(transform))(np.stack([y] * 3))
    same = np.array_equal(three[0], jax.jit(transform)(y))
    for n in (3, 9, 16):
        images = jd.sample(sampler, schedule.steps(2), key=KEY, n=n)
        if same or camera == "pixels":
            np.testing.assert_array_equal(images[0], alone[0])
        np.testing.assert_allclose(images[0], alone[0], atol=1e-6)


def test_conjugate_gradients_keep_their_bits():
    """They make much of a last digit: the program of a group is the same however many there are."""
    prior, table = jd.prior("faces64"), jd.SpectralCovariance.load("faces64")
    mask = jd.operators.Mask(np.random.default_rng(0).random((64, 64, 1)) < 0.5)
    y = np.asarray(mask(jd.data.example()))
    sampler = jd.SpectralPosterior(prior, mask, y, 10 / 255, table)
    three, eight, nine, sixteen = (
        np.asarray(jd.sample(sampler, prior.schedule.steps(4), key=KEY, n=n))
        for n in (3, 8, 9, 16)  # groups of three, and of eight: one, and several
    )
    np.testing.assert_array_equal(three, nine[:3])
    np.testing.assert_array_equal(eight, sixteen[:8])


def test_conjugate_gradients_are_reported(steps):
    for name in ("spectral-masked", "pigdm-masked"):
        _, (iterations, converged) = jd.sample(
            make(name),
            steps,
            key=KEY,
            keep=lambda x, info: (info["cg_iterations"], info["cg_converged"]),
        )
        assert converged.all() and 0 < iterations.min() and iterations.max() < 200


def test_bad_calls(steps):
    sampler = make("ddpm")
    with pytest.raises(ValueError, match="key"):
        jd.sample(sampler, steps)
    with pytest.raises(ValueError, match="noise"):
        jd.sample(sampler, steps, noise=np.zeros((3, 1, 8, 8, 3)))
    with pytest.raises(ValueError, match="noise: of no sample"):
        jd.sample(sampler, steps, noise=np.zeros((len(steps) + 1, 0, 8, 8, 3)))
    with pytest.raises(ValueError, match="n:"):
        jd.sample(sampler, steps, key=KEY, n=0)
    with pytest.raises(ValueError, match="batch_size"):
        jd.sample(sampler, steps, key=KEY, batch_size=0)
    with pytest.raises(ValueError, match="precision"):
        jd.sample(sampler, steps, key=KEY, precision="low")
    with pytest.raises(ValueError, match="step_size"):
        jd.DPS(
            sampler.denoiser,
            jd.operators.Blur(np.ones((1, 1)), (8, 8)),
            np.zeros((8, 8, 3)),
            step_size="x",
        )
    config = dataclasses.replace(
        CONFIG,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
    )
    with pytest.raises(ValueError, match="multiples of 2"):
        jd.UNet2D(config, rngs=nnx.Rngs(0))(jnp.zeros((1, 7, 8, 3)), 0)


def test_precision_of_products(steps):
    """It holds while the program is traced, its gradient too, and is back as it was after."""
    sampler = make("dps", network=True)
    programs = {}
    for precision in (None, "highest"):

        def draw(sampler, precision=precision):
            return jd.sample(sampler, steps, key=KEY, precision=precision)

        programs[precision] = str(jax.make_jaxpr(draw)(sampler))
    assert "HIGHEST" in programs["highest"] and "HIGHEST" not in programs[None]
    assert "precision=None" not in programs["highest"]
    assert jax.config.jax_default_matmul_precision is None


def test_bfloat16_network_keeps_a_float32_state(steps):
    sampler = make("pigdm", network=True)
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), sampler.denoiser.network)
    sampler = replace_leaf(sampler, denoiser=replace_leaf(sampler.denoiser, network=half))
    images, state = jd.sample(sampler, steps, key=KEY, keep=lambda x, info: x)
    assert images.dtype == state.dtype == jnp.float32
    full = jd.sample(make("pigdm", network=True), steps, key=KEY)
    assert float(jnp.abs(images - full).mean()) < 0.05
