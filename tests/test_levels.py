"""Levels, the steps between them, and the one transition."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiff as jd
from jaxdiff.samplers import move
from jaxdiff.schedules import Level, Steps

SCHEDULE = jd.Schedule.from_config()
RNG = np.random.default_rng(0)


def row(steps, i):
    return jax.tree.map(lambda a: jnp.asarray(a[i]), steps)


def general(c):
    """The same row without the stored coefficients."""
    return dataclasses.replace(c, x0_coef=jnp.nan, xt_coef=jnp.nan, noise_coef=jnp.nan)


@pytest.mark.parametrize("i", [0, 7, 18, 19])
def test_move_is_one_formula(i, x64):
    """The stored coefficients are those of fresh = τ, and the published transitions are shares."""
    c = row(SCHEDULE.steps(20), i)
    x, x0, z = (jnp.asarray(a) for a in RNG.standard_normal((3, 4, 4, 1)))
    np.testing.assert_allclose(move(x, c, x0, z), move(x, general(c), x0, z, c.fresh), atol=1e-12)
    eps = (x - c.now.alpha * x0) / c.now.sigma
    ddim = c.next.alpha * x0 + c.next.sigma * eps
    np.testing.assert_allclose(move(x, c, x0, z, 0.0), ddim, atol=1e-12)
    daps = c.next.alpha * x0 + c.next.sigma * z
    np.testing.assert_allclose(move(x, c, x0, z, 1.0), daps, atol=1e-12)


def test_the_last_step_returns_x0_without_a_flag():
    for config in ({}, {"variance_type": "fixed_large"}, {"timestep_spacing": "trailing"}):
        c = row(jd.Schedule.from_config(config).steps(20).astype(np.float32), -1)
        assert (float(c.next.alpha), float(c.next.sigma)) == (1, 0)
        x, x0 = jnp.ones((2, 2, 1)), jnp.full((2, 2, 1), 0.3)
        for z in (0.0, 5.0):
            np.testing.assert_array_equal(move(x, c, x0, z), x0)
        assert float(c.ancestral) == 0


def test_moving_keeps_the_forward_process(x64):
    """x_s of a move from x_t = α_t·x₀ + σ_t·ε has the mean α_s·x₀ and the deviation σ_s, any share."""
    c = row(SCHEDULE.steps(10), 4)
    for fresh in (None, 0.0, 0.3, 1.0):
        share = c.fresh if fresh is None else fresh
        kept = c.next.sigma * np.sqrt(1 - share)
        of_eps = move(c.now.sigma, c, 0.0, 0.0, fresh)
        np.testing.assert_allclose(of_eps, kept, rtol=1e-12)
        np.testing.assert_allclose(move(c.now.alpha, c, 1.0, 0.0, fresh), c.next.alpha, rtol=1e-12)
        of_z = move(0.0, c, 0.0, 1.0, fresh)
        np.testing.assert_allclose(of_eps**2 + of_z**2, c.next.sigma**2, rtol=1e-12)


def test_levels_at_any_scaling():
    preserving = SCHEDULE.level(300)
    exploding = Level(300, 1.0, preserving.sigma / preserving.alpha)
    assert preserving.signal == pytest.approx(exploding.signal, rel=1e-12)
    assert preserving.signal == pytest.approx(SCHEDULE.alphas_cumprod[300], rel=1e-12)
    assert exploding.noise + exploding.signal == pytest.approx(1)
    assert preserving.variance == pytest.approx(exploding.sigma**2)


def test_a_ladder_from_each_level():
    steps = SCHEDULE.steps(4, inner=3)
    assert steps.inner is not None and steps.inner.now.t.shape == (4, 3)
    np.testing.assert_array_equal(steps.inner.now.t[:, 0], steps.t)
    assert (steps.inner.now.t[:, -1] == 0).all() and (steps.inner.next.sigma[:, -1] == 0).all()
    alone = row(steps, 1).inner
    assert isinstance(alone, Steps) and alone.now.alpha.shape == (3,)
    assert SCHEDULE.steps(4).inner is None


@pytest.mark.parametrize(
    "name", ["ScoreSdeVpScheduler", "LCMScheduler", "FlowMatchLCMScheduler", "Mine"]
)
def test_a_schedule_of_another_noise_is_refused_by_name(name):
    with pytest.raises(ValueError, match=name):
        jd.Schedule.from_config({"_class_name": name, "num_train_timesteps": 2000})


@pytest.mark.parametrize("name", ["DDIMScheduler", "PNDMScheduler", "EulerDiscreteScheduler"])
def test_a_schedule_of_the_same_noise_is_the_same(name):
    config = {"_class_name": name, "beta_schedule": "scaled_linear", "beta_end": 0.012}
    ours = jd.Schedule.from_config(config)
    same = jd.Schedule.from_config(config | {"_class_name": "DDPMScheduler"})
    np.testing.assert_array_equal(ours.alphas_cumprod, same.alphas_cumprod)
