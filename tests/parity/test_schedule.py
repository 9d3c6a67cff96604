"""The schedule against diffusers' DDPMScheduler and DDIMScheduler."""

from unittest import mock

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

import jaxdiff as jd
from jaxdiff.samplers import Draws
from jaxdiff.schedules.ddpm import BETA_SCHEDULES, SPACINGS, VARIANCE_TYPES
from jaxdiff.util.pytree import pytree


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("betas", [*BETA_SCHEDULES, "trained"])
def test_alphas_cumprod(betas, zero_snr):
    config = {"rescale_betas_zero_snr": zero_snr}
    if betas == "trained":
        config["trained_betas"] = list(np.linspace(1e-3, 0.1, 200))
    else:
        config["beta_schedule"] = betas
    theirs = DDPMScheduler(**config).alphas_cumprod.double().numpy()
    ours = jd.Schedule.from_config(config).alphas_cumprod
    np.testing.assert_allclose(ours, theirs, atol=2e-6, rtol=0)


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [1, 7, 50, 100, 333, 999])
def test_timesteps(steps, spacing, offset):
    config = {"timestep_spacing": spacing, "steps_offset": offset}
    reference = DDPMScheduler(**config)
    reference.set_timesteps(steps)
    ours = jd.Schedule.from_config(config).steps(steps)
    np.testing.assert_array_equal(ours.t, reference.timesteps.numpy())


class Fixed:
    """Stands in for a network: some outputs, whatever the input."""

    def __init__(self, output):
        self.output, self.dtype = output, jnp.float32
        self.config = jd.UNet2DConfig(sample_size=8, out_channels=output.shape[-1])

    def __call__(self, x, t, labels=None):
        return jnp.asarray(self.output)[None]


CASES = (
    [{"variance_type": v} for v in VARIANCE_TYPES if v != "fixed_large_log"]
    + [{"prediction_type": p} for p in ("sample", "v_prediction")]
    + [{"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}]
    + [{"clip_sample": False}, {"clip_sample_range": 0.4}]
    + [{"thresholding": True}, {"thresholding": True, "sample_max_value": 2.5}]
    + [{"beta_schedule": b} for b in BETA_SCHEDULES]
    + [{"timestep_spacing": s, "steps_offset": 1} for s in SPACINGS]
)


@pytest.mark.parametrize("config", CASES, ids=str)
def test_ddpm_step(config):
    """Every step but the last, where diffusers may still add noise (see `Schedule.steps`)."""
    rng = np.random.default_rng(0)
    learned = config.get("variance_type", "").startswith("learned")
    output = rng.standard_normal((8, 8, 6 if learned else 3)).astype("f")
    if config.get("variance_type") == "learned":
        output[..., 3:] = np.abs(output[..., 3:])
    x, z = rng.standard_normal((2, 8, 8, 3)).astype("f")
    reference = DDPMScheduler(**config)
    reference.set_timesteps(20)
    schedule = jd.Schedule.from_config(config)
    # diffusers' formulas on tables that are not rounded to float32
    reference.alphas_cumprod = torch.tensor(schedule.alphas_cumprod)
    reference.one = torch.ones((), dtype=torch.float64)
    steps = schedule.steps(20)
    sampler = jd.DDPM(jd.Denoiser(Fixed(output), schedule))

    def nchw(a):
        return torch.tensor(a.transpose(2, 0, 1)[None])

    for i in (0, 7, 18):
        with mock.patch("diffusers.schedulers.scheduling_ddpm.randn_tensor", return_value=nchw(z)):
            out = reference.step(nchw(output), int(steps.t[i]), nchw(x))
        c = _row(steps, i)
        ours, info = sampler.step(jnp.asarray(x), c, Draws(jnp.asarray(z)))
        theirs = out.prev_sample[0].permute(1, 2, 0).numpy()
        x0 = out.pred_original_sample[0].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(info["x0_hat"], x0, atol=1e-5 * max(1, np.abs(x0).max()))
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * max(1, np.abs(theirs).max()))


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_ddim_step(prediction, eta):
    rng = np.random.default_rng(0)
    output, x, z = rng.standard_normal((3, 8, 8, 3)).astype("f")
    config = {"prediction_type": prediction}
    reference = DDIMScheduler(**config)
    reference.set_timesteps(20)
    schedule = jd.Schedule.from_config(config)
    steps = schedule.steps(20)
    sampler = jd.DDIM(jd.Denoiser(Fixed(output), schedule), eta=eta)
    for i in (0, 7, 18, 19):
        noise = torch.tensor(z) if eta > 0 else None
        out = reference.step(
            torch.tensor(output), int(steps.t[i]), torch.tensor(x), eta=eta, variance_noise=noise
        )
        ours, _ = sampler.step(jnp.asarray(x), _row(steps, i), Draws(jnp.asarray(z)))
        np.testing.assert_allclose(ours, out.prev_sample.numpy(), atol=1e-4)


def _row(steps, i):
    import jax

    return jax.tree.map(lambda a: jnp.asarray(a[i]), steps.astype(np.float32))


@pytest.mark.parametrize(
    "config", [{}, {"timestep_spacing": "trailing"}, {"variance_type": "fixed_large"}]
)
def test_last_step_has_no_noise(config):
    steps = jd.Schedule.from_config(config).steps(30)
    assert steps.sigma[-1] == 0 and steps.alphas_cumprod_prev[-1] == 1
    assert (steps.sigma[:-1] > 0).all()


def test_configs_round_trip():
    config = DDPMScheduler(beta_schedule="scaled_linear", clip_sample=False, steps_offset=1).config
    ours = jd.Schedule.from_config(config).to_config()
    assert ours == {k: v for k, v in config.items() if k in ours} | {"_class_name": "DDPMScheduler"}


@pytest.mark.parametrize(
    "config, field",
    [
        ({"beta_schedule": "cosine"}, "beta_schedule"),
        ({"prediction_type": "flow"}, "prediction_type"),
        ({"variance_type": "small"}, "variance_type"),
        ({"timestep_spacing": "even"}, "timestep_spacing"),
        ({"num_train_timesteps": 0}, "num_train_timesteps"),
        ({"beta_end": -0.1}, "beta_end"),
    ],
)
def test_bad_config_names_the_field(config, field):
    with pytest.raises(ValueError, match=field):
        jd.Schedule.from_config(config)


def test_too_many_steps():
    with pytest.raises(ValueError, match="1 to 1000"):
        jd.Schedule.from_config().steps(1001)
    with pytest.raises(ValueError, match="spacing"):
        jd.Schedule.from_config().steps(10, spacing="even")


def test_pytree_does_not_validate_tracers():
    @pytree
    class Positive:
        value: float

        def __post_init__(self):
            assert self.value > 0

    import jax

    assert jax.tree.map(lambda v: -v, Positive(2.0)).value == -2.0
