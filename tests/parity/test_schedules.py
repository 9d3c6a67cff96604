"""The schedules beside DDPM's against diffusers' schedulers: x̂₀, ε̂, times and steps in float64."""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import (
    CMStochasticIterativeScheduler,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    ScoreSdeVeScheduler,
)

import jaxdiff as jd
from jaxdiff.schedules import ConsistencySchedule, EDMSchedule, FlowSchedule, VESchedule
from jaxdiff.util.pytree import pytree

FAMILIES = {
    ScoreSdeVeScheduler: VESchedule,
    EDMEulerScheduler: EDMSchedule,
    CMStochasticIterativeScheduler: ConsistencySchedule,
    FlowMatchEulerDiscreteScheduler: FlowSchedule,
}
RNG = np.random.default_rng(0)
X, OUTPUT = RNG.standard_normal((2, 4, 4, 3))
SIGMAS = [0.013, 0.4, 7.0, 60.0]


class Records:
    """Stands in for a network: some output, and what it was given."""

    config = jd.UNet2DConfig(sample_size=4)
    dtype = jnp.float64

    def __call__(self, x, t, labels=None):
        self.x, self.t = x[0], t
        return jnp.asarray(OUTPUT)[None]


def read(theirs):
    return jd.Schedule.from_config({**theirs.config, "_class_name": type(theirs).__name__})


def predicted(schedule, sigma, x=X):
    """x̂₀, ε̂, and what the network was given, at σ."""
    network = Records()
    time = 1000 * sigma if isinstance(schedule, FlowSchedule) else schedule.time(sigma)
    found = jd.Denoiser(network, schedule).predict(jnp.asarray(x), schedule.level(time))
    return found, network


def same(ours, theirs, tolerance=1e-8):
    np.testing.assert_allclose(ours, np.asarray(theirs), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("sigma", SIGMAS)
def test_edm(sigma, prediction_type, x64):
    theirs = EDMEulerScheduler(sigma_data=0.7, prediction_type=prediction_type)
    ours, network = predicted(read(theirs), sigma)
    s = torch.tensor(sigma, dtype=torch.float64)
    same(network.x, theirs.precondition_inputs(torch.tensor(X), s))
    same(network.t, theirs.precondition_noise(s))
    x0 = theirs.precondition_outputs(torch.tensor(X), torch.tensor(OUTPUT), s)
    same(ours.x0_hat, x0)
    same(ours.eps, (X - x0.numpy()) / sigma)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("sigma", [*SIGMAS, 0.002])
def test_consistency(sigma, clip, x64):
    theirs = CMStochasticIterativeScheduler(clip_denoised=clip)
    ours, network = predicted(read(theirs), sigma)
    theirs.sigmas = torch.tensor([sigma, 0.002], dtype=torch.float64)
    theirs.timesteps = torch.tensor(theirs.sigma_to_t(np.array([sigma])))
    same(network.x, theirs.scale_model_input(torch.tensor(X), theirs.timesteps[0]))
    same(network.t, theirs.timesteps[0])
    # A last step, to σ_min, is x̂₀ alone.
    x0 = theirs.step(torch.tensor(OUTPUT), theirs.timesteps[0], torch.tensor(X)).prev_sample
    same(ours.x0_hat, x0)
    if not clip:
        same(ours.eps, (X - x0.numpy()) / sigma)
    if sigma == 0.002:
        same(ours.x0_hat, X.clip(-1, 1) if clip else X)


@pytest.mark.parametrize("sigma", [*SIGMAS, 1348.0])
def test_ve(sigma, x64):
    """diffusers' step to σ = 0 is x̂₀ alone; its UNet2DModel has divided by σ."""
    theirs = ScoreSdeVeScheduler()
    ours, network = predicted(read(theirs), sigma)
    theirs.discrete_sigmas = torch.tensor([sigma], dtype=torch.float64)
    x0 = theirs.step_pred(torch.tensor(OUTPUT), 0, torch.tensor(X)).prev_sample_mean
    same(network.x, X)
    same(network.t, sigma)
    same(ours.x0_hat, x0)
    same(ours.eps, (X - x0.numpy()) / sigma)
    assert jd.Denoiser(network, VESchedule()).decode(jnp.ones(1)) == 1  # images lie in [0, 1]


@pytest.mark.parametrize("sigma", [1.0, 0.6, 0.001])
def test_flow(sigma, x64):
    theirs = FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)
    ours, network = predicted(read(theirs), sigma)
    theirs.sigmas = torch.tensor([sigma, 0], dtype=torch.float64)
    theirs.timesteps = torch.tensor([1000 * sigma], dtype=torch.float64)
    with mock.patch.object(torch, "float32", torch.float64):  # to which it casts
        x0 = theirs.step(torch.tensor(OUTPUT), theirs.timesteps[0], torch.tensor(X)).prev_sample
    same(network.x, X)
    same(network.t, 1000 * sigma)
    same(ours.x0_hat, x0)
    same(ours.eps * sigma + (1 - sigma) * ours.x0_hat, X)


@pytest.mark.parametrize("count", [1, 2, 7, 40])
@pytest.mark.parametrize(
    "theirs",
    [
        EDMEulerScheduler(),
        EDMEulerScheduler(rho=3.0, sigma_max=10.0),
        EDMEulerScheduler(sigma_schedule="exponential"),
        CMStochasticIterativeScheduler(),
        FlowMatchEulerDiscreteScheduler(),
        FlowMatchEulerDiscreteScheduler(shift=3.0),
        ScoreSdeVeScheduler(),
    ],
    ids=lambda s: type(s).__name__,
)
def test_times(theirs, count):
    ours = read(theirs)
    steps = ours.steps(count)
    if isinstance(theirs, ScoreSdeVeScheduler):
        theirs.set_sigmas(count)
        sigmas = np.sort(theirs.discrete_sigmas.numpy())[::-1]
        sigmas = sigmas if count > 1 else [1348.0]  # where diffusers' has the least
    else:
        theirs.set_timesteps(count)
        sigmas = theirs.sigmas.numpy()[:count]
        if theirs.config.get("sigma_schedule") == "exponential" and count == 1:
            sigmas = [80.0]  # where diffusers' has the least
        else:
            same(steps.t, theirs.timesteps.numpy(), 1e-4)
    same(steps.now.sigma, sigmas, 2e-4)
    assert steps.next.sigma[-1] == 0 and steps.next.alpha[-1] == 1
    assert np.all(np.diff(steps.now.signal) > 0) and np.all(steps.fresh > 0)
    same(ours.level(steps.t).sigma, steps.now.sigma)


def test_a_step_of_ddpm_is_the_ancestral_step_of_ve(x64):
    """Song et al. 2021, equation 47: x + (σ_t² − σ_s²)·score, and noise of σ_s√(1 − σ_s²/σ_t²)."""
    schedule = VESchedule()
    steps = schedule.steps(9)
    c = jax.tree.map(lambda a: jnp.asarray(a[3]), steps)
    z = RNG.standard_normal(X.shape)
    sampler = jd.DDPM(jd.Denoiser(Records(), schedule))
    ours, _ = sampler.step(jnp.asarray(X), c, jd.samplers.Draws(jnp.asarray(z)))
    s, t = steps.next.sigma[3], steps.now.sigma[3]
    same(ours, X + (t**2 - s**2) * OUTPUT + np.sqrt(s**2 * (t**2 - s**2) / t**2) * z)


@pytest.mark.parametrize("inner", [1, 4])
@pytest.mark.parametrize("family", FAMILIES.values())
def test_ladders_lead_to_the_data(family, inner):
    steps = family().steps(5, inner=inner)
    ladder = steps.inner
    same(ladder.now.sigma[:, 0], steps.now.sigma)
    assert np.all(ladder.next.sigma[:, -1] == 0) and np.isfinite(ladder.xt_coef).all()
    assert np.all(np.diff(ladder.now.sigma, axis=-1) <= 1e-12)


@pytest.mark.parametrize("theirs", FAMILIES)
def test_configs_round_trip(theirs):
    ours = read(theirs())
    assert type(ours) is FAMILIES[theirs]
    again = jd.Schedule.from_config(ours.to_config())
    assert again.config == ours.config
    assert ours.to_config().items() <= {**theirs().config, "_class_name": theirs.__name__}.items()
    assert type(theirs.from_config(ours.to_config())) is theirs


@pytest.mark.parametrize(
    "config, field",
    [
        ({"_class_name": "ScoreSdeVpScheduler"}, "_class_name"),
        ({"_class_name": "ScoreSdeVeScheduler", "sigma_min": 0}, "sigma_min"),
        ({"_class_name": "ScoreSdeVeScheduler", "sigma_max": "1348"}, "sigma_max"),
        ({"_class_name": "ScoreSdeVeScheduler", "sigma_max": 0.001}, "sigma_min"),
        ({"_class_name": "ScoreSdeVeScheduler", "num_train_timesteps": 1e3}, "num_train_timesteps"),
        ({"_class_name": "ScoreSdeVeScheduler", "num_train_timesteps": 10**9}, "num_train_timesteps"),
        ({"_class_name": "EDMEulerScheduler", "sigma_data": -1}, "sigma_data"),
        ({"_class_name": "EDMEulerScheduler", "sigma_data": float("nan")}, "sigma_data"),
        ({"_class_name": "EDMEulerScheduler", "sigma_max": float("inf")}, "sigma_max"),
        ({"_class_name": "EDMEulerScheduler", "sigma_schedule": "even"}, "sigma_schedule"),
        ({"_class_name": "EDMEulerScheduler", "prediction_type": "sample"}, "prediction_type"),
        ({"_class_name": "CMStochasticIterativeScheduler", "rho": True}, "rho"),
        ({"_class_name": "CMStochasticIterativeScheduler", "clip_denoised": "yes"}, "clip_denoised"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 0}, "shift"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "invert_sigmas": True}, "invert_sigmas"),
    ],
    ids=str,
)  # fmt: skip
def test_a_config_at_fault_is_named(config, field):
    with pytest.raises(ValueError, match=f"^{field}: ") as e:
        jd.Schedule.from_config(config)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("family", FAMILIES.values())
def test_steps_that_a_schedule_has_not(family):
    with pytest.raises(ValueError, match="steps: "):
        family().steps(0)
    with pytest.raises(TypeError, match="steps: "):
        family().steps(2.0)
    with pytest.raises(ValueError, match="spacing: "):
        family().steps(2, "leading")
    if family is ConsistencySchedule:
        with pytest.raises(ValueError, match="1 to 40"):
            family().steps(41)


@pytest.mark.parametrize("family", FAMILIES.values())
def test_another_schedule_of_the_same_fields_does_not_recompile(family):
    traced = []

    @pytree
    class Holder:
        schedule: jd.Schedule

    @jax.jit
    def sigma(holder, t):
        traced.append(1)
        return holder.schedule.level(t).sigma

    t = family().times(3)
    for value in t[:2]:
        found = sigma(Holder(family()), jnp.float32(value))
        np.testing.assert_allclose(found, family().level(value).sigma, rtol=1e-5)
    assert len(traced) == 1
