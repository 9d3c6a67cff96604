"""Weights and folders that are wrong: each is refused in one line, or read right."""

import json
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import jaxdiff as jd
from jaxdiff.checkpoints.formats import convert
from jaxdiff.checkpoints.names import listed, modern
from jaxdiff.checkpoints.tensors import Tensor
from tests.checkpoints.conftest import WEIGHTS, refused


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
