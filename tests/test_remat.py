"""Rematerialisation: the same gradient in less memory."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxdiff as jd
from jaxdiff import sampling
from jaxdiff.nn.remat import recompute_late
from jaxdiff.nn.unet import abstract_unet
from jaxdiff.util import platform
from jaxdiff.util.platform import jit
from tests.parity.configs import CONFIGS


@pytest.mark.parametrize("name", ["base", "attn-skip"])
def test_same_values_and_gradients(name, x64):
    """To x and to the weights, in float64."""
    rng = np.random.default_rng(0)
    graph, shapes = nnx.split(abstract_unet(jd.UNet2DConfig.from_dict(CONFIGS[name])))
    weights = jax.tree.map(lambda w: 0.1 * rng.standard_normal(w.shape), shapes)
    x, of = rng.standard_normal((2, 1, 8, 8, 3))

    def loss(x, weights, *, remat):
        y = nnx.merge(graph, weights)(x, 500, remat=remat)
        return jnp.vdot(y, of)

    run = jit(jax.value_and_grad(loss, (0, 1)), static=("remat",))
    chex.assert_trees_all_close(
        run(x, weights, remat=True), run(x, weights, remat=False), atol=1e-12
    )


def test_half_the_memory(faces64):
    """Of temporaries for a gradient through the network, read from the compiled program."""
    x = np.zeros((192, 192, 3), "f")

    def temporaries(remat):
        gradient = jax.grad(lambda d, x: d(x, 500).sum(), 1)
        program = jax.jit(gradient, compiler_options=platform.compiler_options())
        lowered = program.lower(jd.Denoiser(*faces64, remat=remat), x)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert temporaries(True) < 0.5 * temporaries(False)


@pytest.mark.parametrize("n", [1, 4])
def test_a_trajectory_keeps_the_conditionals(n, faces64):
    """A map of all samples at once would compute both branches of each."""
    unet, schedule = faces64
    run = jax.jit(sampling._run_trajectory.__wrapped__, static_argnums=(4, 5, 6, 7))
    samples = sampling._Samples(jax.random.split(jax.random.key(0), n))
    steps = schedule.steps(2).astype("float32")

    def conditionals(remat):
        denoiser = jd.Denoiser(unet, schedule, remat=remat)
        sampler = jd.DPS(denoiser, jd.operators.Affine(1.0, 0.0), np.zeros((64, 64, 3), "f"))
        static = ((64, 64, 3), jnp.dtype("float32"), None, None)
        return run.lower(sampler, steps, 1.0, samples, *static).as_text().count("stablehlo.case")

    assert conditionals(True) > 20 and conditionals(False) == 0


def test_nan_stays_nan():
    """A number of the gradient decides whether it goes on: what is no number must not be lost."""

    def f(x):
        return jnp.log(recompute_late(jnp.square, x)).sum()

    assert np.isnan(jax.grad(f)(jnp.array([jnp.nan, 1.0]))).all()
    np.testing.assert_allclose(jit(jax.grad(f))(jnp.array([1.0, 2.0])), [2, 1])


def test_dropout_is_refused(faces64):
    unet, _ = faces64
    with pytest.raises(ValueError, match="remat"):
        unet(jnp.zeros((1, 64, 64, 3)), 0, rngs=nnx.Rngs(dropout=0), remat=True)
