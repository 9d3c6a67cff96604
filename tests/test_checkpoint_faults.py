"""Checkpoints that say something wrong: each is refused in one line that names the file, or read right."""

import json
import shutil
import time
import warnings
from pathlib import Path
from unittest import mock

import jax.numpy as jnp
import numpy as np
import pytest
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors.numpy import load_file, save_file

import jaxdiff as jd
from jaxdiff.checkpoints import sources
from jaxdiff.checkpoints.diffusers import convert
from jaxdiff.checkpoints.names import listed, modern
from jaxdiff.checkpoints.tensors import Tensor
from jaxdiff.schedules.families import DDPM_FAMILY, check_family
from jaxdiff.util import limits

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tiny, tmp_path):
    """A checkpoint of one's own, to spoil."""
    return Path(shutil.copytree(tiny, tmp_path / "mine"))


def edit(path: Path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refused(folder: Path, match: str):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises((ValueError, OSError), match=match) as error:
            jd.load(folder)
    message = str(error.value)
    assert "\n" not in message and len(message) < 700 + len(str(folder)) and "mine" in message


# --- values of configs ------------------------------------------------------------------------------

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
    started = time.perf_counter()
    refused(folder, rf"config\.json: {next(iter(change))}")
    assert time.perf_counter() - started < 5


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


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '"text"', "{" * 100_000, "[" * 100_000, '{"a": ' + "1" * 5000 + "}", "\ud800"],
    ids=["empty", "cut", "list", "string", "deep", "deeper", "digits", "no-utf-8"],
)
@pytest.mark.parametrize("name", ["config.json", "scheduler_config.json"])
def test_no_json(name, text, folder):
    (folder / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    refused(folder, name)


def test_json_of_windows(folder):
    path = folder / "config.json"
    path.write_text("\ufeff" + path.read_text(), encoding="utf-8")
    assert jd.load(folder)[0].config.sample_size == 64


# --- families ---------------------------------------------------------------------------------------

OTHERS = (
    *("ScoreSdeVeScheduler", "ScoreSdeVpScheduler", "CMStochasticIterativeScheduler", "EDMEulerScheduler"),
    *("EDMDPMSolverMultistepScheduler", "FlowMatchEulerDiscreteScheduler", "LCMScheduler", "IPNDMScheduler"),
    *("MyDDPMScheduler", "", 5, ["DDPMScheduler"], None),
)  # fmt: skip


@pytest.mark.parametrize("name", OTHERS, ids=str)
def test_noise_that_is_not_a_ddpms(name, folder, tmp_path):
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
    refused(folder, r"model_index\.json: a prior of latents")


# --- tensors ----------------------------------------------------------------------------------------


def rewrite(folder, change):
    tensors = load_file(folder / WEIGHTS)
    save_file(change(tensors) or tensors, folder / WEIGHTS)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(value, folder):
    def change(tensors):
        tensors["conv_in.weight"][0, 1, 2, 0] = value

    rewrite(folder, change)
    refused(folder, r"conv_in\.weight: holds NaN or infinite values")


def test_weights_that_are_not_finite_are_not_saved(tiny, folder):
    unet, schedule = jd.load(tiny)
    unet.conv_out.bias[...] = unet.conv_out.bias[...].at[1].set(jnp.nan)
    with pytest.raises(ValueError, match=r"conv_out\.bias: holds NaN"):
        jd.save(folder, unet, schedule)
    jd.load(folder)


def test_weights_too_large_for_their_type(folder):
    def change(tensors):
        tensors["conv_in.weight"][0, 1, 2, 0] = 1e6

    rewrite(folder, change)
    jd.load(folder)
    with pytest.raises(ValueError, match=r"conv_in\.weight: .* in float16"):
        jd.load(folder, dtype=jnp.float16)


@pytest.mark.parametrize("dtype", ["uint8", "int64", "bool", "complex64"])
def test_weights_of_a_type_that_is_no_weights(dtype, folder):
    rewrite(folder, lambda t: t | {"conv_in.bias": t["conv_in.bias"].astype(dtype)})
    refused(folder, r"1 of a type that is no weight's: conv_in\.bias")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_a_wrappers_prefix(prefix, folder, tiny):
    rewrite(folder, lambda tensors: {prefix + name: value for name, value in tensors.items()})
    np.testing.assert_array_equal(
        jd.load(folder)[0].conv_in.kernel[...], jd.load(tiny)[0].conv_in.kernel[...]
    )


def test_long_lists_of_names_are_short(folder):
    rewrite(folder, lambda tensors: {"net." + name: value for name, value in tensors.items()})
    refused(folder, r"missing: .* and \d+ more; .* unexpected: .* and \d+ more$")
    assert listed("ab") == "a, b" and len(listed(["x" * 1000])) == 120


def test_a_tensor_by_both_its_names(folder):
    old, new = (f"mid_block.attentions.0.{name}.bias" for name in ("query", "to_q"))
    rewrite(folder, lambda tensors: tensors | {old: np.zeros(2, "f"), new: np.zeros(2, "f")})
    refused(folder, r"to_q\.bias: there twice")


def test_frequencies_under_two_names():
    tensors = {
        name: Tensor((2,), lambda: np.ones(2, "f")) for name in ("time_proj.W", "time_proj.weight")
    }
    assert (
        modern(tensors).keys()
        == {"time_proj.weight"}
        == modern(dict([*tensors.items()][:1])).keys()
    )


def shards(folder: Path, split, weight_map=None):
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    parts = split(tensors)
    for name, part in parts.items():
        save_file(part, folder / name)
    known = {tensor: name for name, part in parts.items() for tensor in part}
    index = {"weight_map": known if weight_map is None else weight_map}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))


def test_a_tensor_in_two_shards(folder):
    shards(folder, lambda t: {"a.safetensors": t, "b.safetensors": {"conv_in.bias": t["conv_in.bias"]}}, {"a": "a.safetensors", "b": "b.safetensors"})  # fmt: skip
    refused(folder, r"b\.safetensors: has conv_in\.bias, which another shard has too")


@pytest.mark.parametrize(
    "weight_map",
    [None, [], {}, "a", {"a": 1}, {"a": None}, {"a": ["a.safetensors"]}, {"a": "a" * 300}],
    ids=str,
)
def test_an_index_of_another_form(weight_map, folder):
    shards(folder, lambda tensors: {"a.safetensors": tensors}, weight_map or [])
    index = folder / f"{WEIGHTS}.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    refused(folder, r"index\.json: expected a weight_map")


@pytest.mark.parametrize("shard", ["../a.safetensors", "/etc/passwd", "..", "", "C:a", "..\\a"])
def test_a_shard_elsewhere(shard, folder):
    shards(folder, lambda tensors: {"a.safetensors": tensors}, {"conv_in.bias": shard})
    shutil.copy(folder / "a.safetensors", folder.parent)
    refused(folder, "its shard .* is not there")


@pytest.mark.parametrize("name", [WEIGHTS, "diffusion_pytorch_model.bin"])
@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\xff" * 100, b"<html>", b"PK\3\4"])
def test_no_weights_at_all(name, content, folder):
    (folder / WEIGHTS).unlink()
    (folder / name).write_bytes(content)
    refused(folder, name)


def test_a_pointer_of_git_lfs(folder):
    (folder / WEIGHTS).write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n"
    )
    refused(folder, "git lfs pull")


# --- folders of diffusers' training script --------------------------------------------------------------


@pytest.mark.parametrize("inside", ["", "unet_ema", "unet"])
def test_a_training_scripts_checkpoint(inside, folder, tmp_path):
    """RUN/checkpoint-500/unet_ema, with RUN/scheduler: another schedule than the default."""
    checkpoint = tmp_path / "run" / "checkpoint-500"
    for name in ("unet", "unet_ema") if inside else ("unet_ema",):
        shutil.copytree(
            folder, checkpoint / name, ignore=shutil.ignore_patterns("scheduler*", "model_index*")
        )
    with pytest.warns(UserWarning, match="DDPM defaults"):
        jd.load(checkpoint / inside)
    scheduler = tmp_path / "run/scheduler/scheduler_config.json"
    scheduler.parent.mkdir()
    scheduler.write_text('{"_class_name": "DDPMScheduler", "beta_schedule": "squaredcos_cap_v2"}')
    with pytest.warns(UserWarning, match=r"using .*run/scheduler/scheduler_config\.json"):
        _, schedule = jd.load(checkpoint / inside)
    assert schedule.config.beta_schedule == "squaredcos_cap_v2"


# --- convert ----------------------------------------------------------------------------------------


def test_convert_keeps_what_it_does_not_rewrite(folder, tmp_path):
    scheduler = '{"_class_name": "PNDMScheduler",   "beta_end": 0.015, "skip_prk_steps": true}'
    (folder / "scheduler_config.json").write_text(scheduler)
    table = "spectral_covariance.safetensors"
    convert(folder, tmp_path / "out", keep=(table, "absent"))
    assert (tmp_path / "out/scheduler_config.json").read_text() == scheduler
    assert (tmp_path / "out" / table).read_bytes() == (folder / table).read_bytes()
    convert(folder, folder)  # onto itself
    assert (folder / "scheduler_config.json").read_text() == scheduler
    jd.load(folder)


def test_convert_sets_another_checkpoints_table_aside(tiny, folder, tmp_path):
    table = "spectral_covariance.safetensors"
    content = (folder / table).read_bytes()
    source = shutil.copytree(tiny, tmp_path / "without", ignore=shutil.ignore_patterns(table))
    with pytest.warns(UserWarning, match=r"not of these weights, it is .*\.before now"):
        convert(source, folder, keep=(table,))
    assert not (folder / table).exists()
    assert (folder / f"{table}.before").read_bytes() == content


# --- the hub ----------------------------------------------------------------------------------------


class Hub:
    """huggingface_hub's answers, by the file's name; what is not here does not exist."""

    def __init__(self, folder, monkeypatch, **failures):
        self.folder, self.failures, self.asked = folder, failures, []
        monkeypatch.setattr(sources, "hf_hub_download", self)

    def __call__(self, repo, name, **options):
        self.asked.append(name)
        for part, error in self.failures.items():
            if part in name:
                raise error
        if not (self.folder / name).is_file():
            raise EntryNotFoundError(name)
        return str(self.folder / name)


def unanswered():
    error = LocalEntryNotFoundError("an error happened while trying to locate the file")
    error.__cause__ = TimeoutError("503 Service Unavailable")
    return error


@pytest.mark.parametrize("name", ["scheduler", "index", "safetensors", "spectral"])
def test_no_answer_is_no_absence(name, folder, monkeypatch):
    hub = Hub(folder, monkeypatch, **{name: unanswered()})
    monkeypatch.setattr(sources, "_cached", lambda source: True)
    monkeypatch.setattr(sources.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(sources, "_answers", lambda source: True)
    with pytest.raises(OSError, match=r"me/x: the hub does not say .* \(503 Service Unavailable\)"):
        jd.SpectralCovariance.load("me/x") if name == "spectral" else jd.load("me/x")
    assert sum(name in asked for asked in hub.asked) == 1


@pytest.mark.parametrize(
    "error", [ConnectionError("cut"), RuntimeError("peer closed"), OSError("no space")]
)
def test_a_download_that_fails(error, folder, monkeypatch):
    Hub(folder, monkeypatch, scheduler=error)
    with pytest.raises(OSError, match=r"me/x: scheduler/scheduler_config\.json could not be downl"):
        jd.load("me/x")


def test_an_absence_that_the_cache_knows(folder, monkeypatch):
    """Without a connection, from what was asked before: a table that is not there stays so."""
    hub = Hub(folder, monkeypatch, unet=unanswered(), scheduler=unanswered())
    monkeypatch.setattr(sources.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(sources, "_answers", lambda source: False)
    known = mock.Mock(return_value=sources._CACHED_NO_EXIST)
    monkeypatch.setattr(sources, "try_to_load_from_cache", known)
    with pytest.warns(UserWarning, match="DDPM defaults"):
        jd.load("me/x")
    assert "scheduler_config.json" in hub.asked


def test_no_connection_is_said_at_once(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    started = time.perf_counter()
    with pytest.raises(FileNotFoundError, match="could not be reached"):
        jd.load("nobody/nothing")
    assert time.perf_counter() - started < 5
