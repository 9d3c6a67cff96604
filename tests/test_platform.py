"""Whatever a platform chooses, the numbers are the same."""

import json

import chex
import jax
import numpy as np
import pytest
from flax import nnx

import jaxdiff as jd
from jaxdiff.nn.unet import abstract_unet
from jaxdiff.util import platform
from tests.parity.configs import CONFIGS

CHOICES = [
    {"phases": False},
    {"attention": "xla"},
    {"attention": "cudnn"},  # on a CPU, and for a head that it does not take, our own
    {"vmap": True},
    {"vmap": True, "unroll": 3},
    {"vmap": False, "unroll": 2},
]


def network(config):
    rng = np.random.default_rng(0)
    graph, shapes = nnx.split(abstract_unet(jd.UNet2DConfig.from_dict(config)))
    weights = jax.tree.map(lambda w: 0.1 * rng.standard_normal(w.shape).astype("f"), shapes)
    return nnx.merge(graph, weights)


@pytest.mark.parametrize(
    ("choice", "padding"), [*((choice, 0) for choice in CHOICES[:3]), (CHOICES[0], 1)], ids=str
)
def test_the_network_and_its_gradient(choice, padding, monkeypatch):
    """Strided convolutions of both paddings, doubled images and attention, to x and to the weights."""
    unet = network(CONFIGS["base"] | {"downsample_padding": padding})
    x, weight = np.random.default_rng(1).standard_normal((2, 2, 8, 8, 3)).astype("f")

    def results():
        def loss(unet, x):
            return (unet(x, 300) * weight).sum()

        return platform.jit(jax.value_and_grad(loss, (0, 1)))(unet, x)

    usual = results()
    monkeypatch.setenv("JAXDIFF_CHOICES", json.dumps(choice))
    chex.assert_trees_all_close(results(), usual, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("choice", CHOICES[3:], ids=str)
def test_a_trajectory(choice, monkeypatch):
    prior = jd.priors.Gaussian(np.full((8, 8), 0.1), jd.Schedule.from_config())
    blur = jd.operators.Blur(np.ones((3, 3)) / 9, (8, 8))
    sampler = jd.PiGDM(prior, blur, np.random.default_rng(2).random((8, 8, 1)), 0.1)

    def images():
        jax.clear_caches()  # what was compiled stays as it is
        return jd.sample(sampler, prior.schedule.steps(5), key=jax.random.key(0), n=2)

    usual = images()
    monkeypatch.setenv("JAXDIFF_CHOICES", json.dumps(choice))
    np.testing.assert_allclose(images(), usual, atol=1e-4)
    jax.clear_caches()


@pytest.mark.parametrize("text", ["{", "[1]", '{"unrol": 2}', '{"unroll": 2', "2"])
def test_bad_choices(text, monkeypatch):
    monkeypatch.setenv("JAXDIFF_CHOICES", text)
    with pytest.raises(
        ValueError, match="JAXDIFF_CHOICES: expected JSON with vmap, pixels, unroll"
    ):
        platform.choices()
