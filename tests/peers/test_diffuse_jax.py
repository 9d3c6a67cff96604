"""diffuse-jax 0.1: its guidance on the same network, in float64."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiff as jd
from jaxdiff.operators import Affine, Mask
from jaxdiff.samplers import Draws
from jaxdiff.schedules import Level
from tests.peers.conftest import SHAPE, Network

pytest.importorskip("diffuse.denoisers.cond", reason="needs diffuse-jax: pip install -e .[peers]")
pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.filterwarnings("ignore")]

SIGMA, T = 0.1, 0.4
RNG = np.random.default_rng(0)
MASK = np.zeros((8, 8))
MASK[[1, 3, 6], [2, 5, 0]] = 1  # three pixels: its three conjugate gradients are enough
X, Y = RNG.standard_normal(SHAPE), RNG.random(SHAPE) * MASK[..., None]


def theirs(kind):
    """The state after its step, of an integrator that returns the score it is given; and the level."""
    from diffuse.denoisers.cond import CondDenoiserState, DPSDenoiser, TMPDenoiser
    from diffuse.diffusion.sde import SDE, LinearSchedule
    from diffuse.integrator.base import IntegratorState
    from diffuse.predictor import Predictor

    model = SDE(LinearSchedule(b_min=0.02, b_max=5.0, t0=0.0, T=1.0))
    at = Level(T, model.signal_level(T), model.noise_level(T))
    predictor = Predictor(model, lambda x, t: Network()(x, at), "x0")

    class Score:
        def timer(self, step):
            return T

        def __call__(self, state, predictor):
            return state._replace(position=predictor.score(state.position, T))

    def hidden(y, _):  # A and Aᵀ, which 0.1.0 calls `restore`
        return y * MASK[..., None]

    seen = SimpleNamespace(apply=hidden, adjoint=hidden, restore=hidden, std=SIGMA)
    method = {"tmp": TMPDenoiser, "dps": DPSDenoiser}[kind](Score(), model, predictor, seen, SHAPE)
    state = CondDenoiserState(IntegratorState(jnp.asarray(X), jax.random.key(0), 0))
    measured = SimpleNamespace(y=jnp.asarray(Y))
    found = method.step(jax.random.key(0), state, measured).integrator_state.position
    return found - predictor.score(jnp.asarray(X), T), at


def test_tmp_is_moment_matching_with_a_covariance_over_sigma():
    """Not Boys et al.'s diagonal, but three conjugate gradients, as MMPS: with (σ_t/α_t)·∂x̂₀/∂x_t for the
    covariance where Tweedie's formula has σ_t²/α_t, and the Jacobian where it is its transpose.
    """
    guidance, at = theirs("tmp")
    jacobian = np.asarray(jax.jacobian(lambda x: Network()(x, at).ravel())(X)).reshape(64, 64)
    rows = np.eye(64)[MASK.ravel() > 0]
    residual = rows @ (Y - np.asarray(Network()(X, at))).ravel()

    def expected(scale, jacobian, last):
        inner = scale * rows @ jacobian @ rows.T + SIGMA**2 * np.eye(3)
        return last @ rows.T @ np.linalg.solve(inner, residual)

    found = np.asarray(guidance).ravel()
    ratio = at.sigma / at.alpha
    np.testing.assert_allclose(found, expected(ratio, jacobian, jacobian), atol=1e-6)
    paper = expected(at.sigma * ratio, jacobian.T, jacobian.T)
    assert np.abs(found - paper).max() > 0.1 * np.abs(paper).max()
    sampler = jd.MMPS(Network(decode=Affine(1, 0)), Mask(MASK), Y, SIGMA, 3)
    c = jd.Steps(at, at, fresh=1, x0_coef=1, xt_coef=0, noise_coef=0, ancestral=0)  # x_s is x₀
    x0, info = sampler.step(jnp.asarray(X), c, Draws(jnp.zeros(SHAPE)))
    shift = np.asarray(x0 - info["x0_hat"]).ravel()
    np.testing.assert_allclose(shift, at.sigma * ratio * paper, atol=1e-8)


def test_dps_weighs_by_the_norm_twice():
    """ζ·∇‖r‖²/(‖r‖ + ε) is 2ζ·∇‖r‖ up to ε: ours with a scale of 2ζ."""
    correction, at = theirs("dps")

    def norm(x):
        return jnp.linalg.norm(Y - Network()(x, at) * MASK[..., None])

    np.testing.assert_allclose(correction, -2 * 0.01 * jax.grad(norm)(jnp.asarray(X)), rtol=2e-3)
