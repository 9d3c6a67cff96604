"""Configs that say something wrong: each is refused in one line that names file and field."""

import time

import numpy as np
import pytest

import jaxdiff as jd
from jaxdiff.checkpoints.formats import convert
from jaxdiff.schedules.families import DDPM_FAMILY, check_family
from jaxdiff.util import limits
from tests.checkpoints.conftest import edit, refused

SCHEDULER = [
    {"clip_sample": "false"},
    {"clip_sample": 1},
    {"thresholding": None},
    {"rescale_betas_zero_snr": "no"},
    {"steps_offset": -5},
    {"steps_offset": 1000},
    {"steps_offset": 0.5},
    {"steps_offset": True},
    {"num_train_timesteps": 1000.0},
    {"num_train_timesteps": "1000"},
    {"num_train_timesteps": True},
    {"num_train_timesteps": 0},
    {"num_train_timesteps": 10**8},
    {"beta_start": "0.0001"},
    {"beta_start": None},
    {"beta_start": [0.1]},
    {"beta_end": -0.02},
    {"beta_end": 2},
    {"beta_end": float("nan")},
    {"beta_end": float("inf")},
    {"trained_betas": "1111"},
    {"trained_betas": 5},
    {"trained_betas": []},
    {"trained_betas": {"0.1": 0.1}},
    {"trained_betas": [0.1, "0.1"]},
    {"trained_betas": [0.1, True]},
    {"trained_betas": [0.1, 10**400]},
    {"trained_betas": [[0.1]]},
    {"trained_betas": [0.1, 1.5]},
    {"clip_sample_range": 0},
    {"clip_sample_range": 10**400},
    {"clip_sample_range": float("inf")},
    {"sample_max_value": "1"},
    {"dynamic_thresholding_ratio": 1.5},
    {"prediction_type": ["epsilon"]},
    {"prediction_type": "flow_prediction"},
    {"variance_type": 3},
    {"timestep_spacing": None},
    {"beta_schedule": "exp"},
]


@pytest.mark.parametrize("change", SCHEDULER, ids=str)
def test_a_wrong_scheduler_names_file_and_field(change, folder):
    edit(folder / "scheduler_config.json", **change)
    refused(folder, rf"scheduler_config\.json: {next(iter(change))}")


CONFIG = [
    {"sample_size": 10**9},
    {"sample_size": "64"},
    {"sample_size": 64.0},
    {"sample_size": [64, 64, 64]},
    {"sample_size": True},
    {"layers_per_block": 2000},
    {"layers_per_block": True},
    {"block_out_channels": 8},
    {"block_out_channels": "88"},
    {"block_out_channels": {"8": 8}},
    {"block_out_channels": [8.0, 8.0]},
    {"block_out_channels": [10**12, 10**12]},
    {"block_out_channels": [4] * 40, "down_block_types": ["DownBlock2D"] * 40},
    {"down_block_types": "DownBlock2D"},
    {"down_block_types": [["DownBlock2D"]] * 2},
    {"down_block_types": None},
    {"in_channels": 10**30},
    {"num_class_embeds": 10**12},
    {"time_embedding_dim": -1},
    {"norm_eps": float("inf")},
    {"norm_eps": float("nan")},
    {"norm_eps": "1e-5"},
    {"mid_block_scale_factor": 0},
    {"dropout": True},
    {"dropout": None},
    {"freq_shift": "0"},
    {"freq_shift": float("nan")},
    {"freq_shift": 2},  # half of the 4 channels: a division by 0
    {"center_input_sample": 1},
    {"downsample_padding": True},
    {"downsample_padding": 1.0},
    {"act_fn": ["silu"]},
    {"act_fn": {"silu": 1}},
    {"mid_block_type": 5},
    {"attention_head_dim": [8, 8]},
    {"norm_num_groups": 2.0},
    {"_class_name": "UNet2DConditionModel"},
    {"_class_name": ["UNet2DModel"]},
]


@pytest.mark.parametrize("change", CONFIG, ids=lambda c: str(c)[:60])
def test_a_wrong_config_names_file_and_field(change, folder):
    edit(folder / "config.json", **change)
    started = time.process_time()
    refused(folder, rf"config\.json: {next(iter(change))}")
    assert time.process_time() - started < 5


def test_trained_betas_count_the_steps(folder):
    edit(folder / "scheduler_config.json", trained_betas=[0.1, 0.2, 0.4])
    schedule = jd.load(folder)[1]
    assert schedule.num_train_timesteps == 3
    np.testing.assert_allclose(schedule.alphas_cumprod, [0.9, 0.72, 0.432])


@pytest.mark.parametrize(
    "scheduler", [{"rescale_betas_zero_snr": True}, {"trained_betas": [0.5, 1.0]}]
)
def test_epsilon_where_nothing_of_the_image_is_left(scheduler, folder):
    edit(folder / "scheduler_config.json", **scheduler)
    refused(folder, r"scheduler_config\.json: prediction_type: epsilon says nothing")
    edit(folder / "scheduler_config.json", prediction_type="v_prediction")
    assert jd.load(folder)[1].alphas_cumprod[-1] == 0


def test_limits_can_be_set(folder, monkeypatch):
    edit(
        folder / "scheduler_config.json", num_train_timesteps=limits.TIMESTEPS + 1, beta_end=0.0002
    )
    refused(folder, "JAXDIFF_MAX_TIMESTEPS")
    monkeypatch.setattr(limits, "TIMESTEPS", limits.TIMESTEPS + 1)
    assert jd.load(folder)[1].num_train_timesteps == limits.TIMESTEPS


def test_fields_that_are_not_ours_are_ignored(folder):
    edit(folder / "config.json", decay=0.9999, torch_dtype="float16", time_cond_proj_dim=None)
    with pytest.warns(UserWarning, match="ignoring 'decay', 'time_cond_proj_dim', 'torch_dtype'"):
        assert jd.load(folder)[0].config.sample_size == 64


def test_fields_that_no_ddpm_has_are_ignored():
    for unknown in ({"decay": 0.9}, {"tensor_format": "pt"}, {"foo": None, "bar": [1]}):
        with pytest.warns(UserWarning, match=f"ignoring .*{next(iter(unknown))}.*DDPMScheduler"):
            found = jd.Schedule.from_config(
                {"_class_name": "DDPMScheduler", "beta_end": 0.03} | unknown
            )
        assert found.config.beta_end == 0.03
    # Another scheduler's own fields say where it steps, and are no surprise.
    jd.Schedule.from_config({"_class_name": "DPMSolverMultistepScheduler", "solver_order": 2})


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '"text"', "{" * 100_000, "[" * 100_000, '{"a": ' + "1" * 5000 + "}", "\ud800"],
    ids=["empty", "cut", "list", "string", "deep", "deeper", "digits", "no-utf-8"],
)
@pytest.mark.parametrize("name", ["config.json", "scheduler_config.json"])
def test_no_json(name, text, folder):
    (folder / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    refused(folder, name)


def test_a_json_of_another_size(folder, monkeypatch):
    monkeypatch.setattr(limits, "JSON_BYTES", 100)
    refused(folder, r"\.json: bytes: expected at most 100, .* JAXDIFF_MAX_JSON_BYTES")


def test_json_of_windows(folder):
    path = folder / "config.json"
    path.write_text("\ufeff" + path.read_text(), encoding="utf-8")
    assert jd.load(folder)[0].config.sample_size == 64


OTHERS = (
    *("ScoreSdeVpScheduler", "LCMScheduler", "IPNDMScheduler", "FlowMatchHeunDiscreteScheduler"),
    *("MyDDPMScheduler", "", 5, ["DDPMScheduler"], None),
)  # fmt: skip


@pytest.mark.parametrize("name", OTHERS, ids=str)
def test_noise_that_is_not_known(name, folder, tmp_path):
    edit(folder / "scheduler_config.json", _class_name=name)
    refused(folder, r"scheduler_config\.json: _class_name: the noise of")
    with pytest.raises(ValueError, match="_class_name"):
        convert(folder, tmp_path / "converted")
    assert not (tmp_path / "converted").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True},
        {"_class_name": "DPMSolverMultistepScheduler", "prediction_type": "flow_prediction"},
        {"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"},
    ],
    ids=str,
)
def test_a_sampler_of_ddpms_that_says_it_is_of_other_noise(change, folder):
    edit(folder / "scheduler_config.json", **change)
    refused(folder, list(change)[1])


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")
@pytest.mark.parametrize("name", DDPM_FAMILY)
def test_diffusers_own_config_of_the_family_has_its_betas(name):
    import diffusers

    if not hasattr(diffusers, name):
        pytest.skip("not in this diffusers")
    try:
        theirs = getattr(diffusers, name)(beta_schedule="scaled_linear", beta_end=0.012)
    except ImportError:
        pytest.skip("needs torchsde")
    ours = jd.Schedule.from_config(check_family(dict(theirs.config)))
    np.testing.assert_allclose(
        ours.alphas_cumprod, np.cumprod(1 - theirs.betas.double().numpy()), rtol=1e-4
    )


def test_betas_that_a_class_would_have_had():
    with pytest.raises(ValueError, match="beta_start, beta_end, beta_schedule"):
        check_family({"_class_name": "HeunDiscreteScheduler"})


def test_a_prior_of_latents(folder):
    edit(folder / "model_index.json", vqvae=["diffusers", "VQModel"])
    refused(folder, "a prior of latents")
