"""Reading and writing checkpoints: every format, every fault."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler
from flax import nnx
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

import jaxdiff as jd
from jaxdiff.checkpoints.torch_zip import read_torch_zip
from tests.conftest import xla_flags
from tests.parity.configs import CONFIGS
from tests.parity.reference import torch_unet
from tests.parity.test_unet import save_as_old_bin

CONFIG = CONFIGS["celebahq-like"]
WEIGHTS = "diffusion_pytorch_model"


@pytest.fixture(scope="module")
def model():
    return torch_unet(CONFIG)


@pytest.fixture(scope="module")
def expected(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    DDPMPipeline(model, DDPMScheduler(beta_end=0.03)).save_pretrained(folder)
    return jd.load(folder)


def flat(model, folder: Path) -> Path:
    """A flat folder without weights."""
    folder.mkdir(exist_ok=True)
    model.save_config(folder)
    DDPMScheduler(beta_end=0.03).save_pretrained(folder)
    return folder


def same(unet, reference, tolerance=0.0):
    a, b = (dict(nnx.to_flat_state(nnx.state(u))) for u in (unet, reference))
    assert a.keys() == b.keys()
    for path in a:
        np.testing.assert_allclose(a[path][...], b[path][...], atol=tolerance)


def write(kind: str, model, folder: Path):
    if kind == "pipeline":
        DDPMPipeline(model, DDPMScheduler(beta_end=0.03)).save_pretrained(folder)
    elif kind == "pipeline-bin":
        pipeline = DDPMPipeline(model, DDPMScheduler(beta_end=0.03))
        pipeline.save_pretrained(folder, safe_serialization=False)
    elif kind == "old-bin":
        save_as_old_bin(model, flat(model, folder))
    elif kind == "sharded":
        model.save_pretrained(flat(model, folder), max_shard_size="20KB")
        assert len(list(folder.glob("*.safetensors"))) > 2
    elif kind == "sharded-bin":
        model.save_pretrained(flat(model, folder), max_shard_size="20KB", safe_serialization=False)
        assert len(list(folder.glob("*.bin"))) > 2
    elif kind.startswith("fp16"):
        half = torch_unet(CONFIG).half()
        half.save_pretrained(
            flat(model, folder), variant="fp16", safe_serialization="bin" not in kind,
            max_shard_size="20KB" if "sharded" in kind else "1GB",
        )  # fmt: skip


KINDS = ("pipeline", "pipeline-bin", "old-bin", "sharded", "sharded-bin", "fp16", "fp16-bin", "fp16-sharded")  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_formats(kind, model, expected, tmp_path):
    write(kind, model, tmp_path)
    unet, schedule = jd.load(tmp_path)
    assert schedule.config.beta_end == 0.03
    same(unet, expected[0], 2e-3 if "fp16" in kind else 0)


def test_both_weights_prefers_full_precision(model, expected, tmp_path):
    write("fp16", model, tmp_path)
    write("sharded", model, tmp_path)
    same(jd.load(tmp_path)[0], expected[0])


def test_bfloat16_files(model, expected, tmp_path):
    torch_unet(CONFIG).to(torch.bfloat16).save_pretrained(flat(model, tmp_path))
    unet, _ = jd.load(tmp_path)
    same(unet, expected[0], 2e-2)
    half, schedule = jd.load(tmp_path, dtype=jnp.bfloat16)
    jd.save(tmp_path / "again", half, schedule)
    same(jd.load(tmp_path / "again")[0], unet)


def test_unet_alone(model, expected, tmp_path):
    model.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="DDPM defaults"):
        unet, schedule = jd.load(tmp_path)
    same(unet, expected[0])
    assert schedule.config.beta_end == 0.02


def test_bundled_prior_is_better_than_the_one_that_was_given():
    """Validation loss on 100 photographs that neither was trained on; and it is small enough."""
    from jaxdiff import data
    from jaxdiff.train.objective import validation_loss
    from tests.conftest import shared

    images = data.load_images(shared("data/faces64/faces64.npz"), (64, 64), n=100, split="val")
    checkpoints = (shared("checkpoints/faces64"), "faces64")
    given, ours = (
        validation_loss(jd.Denoiser(*jd.load(c)), data.to_uint8(images), levels=2)
        for c in checkpoints
    )
    assert ours < 0.99 * given
    folder = Path(jd.__file__).parent / "priors/faces64"
    assert sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) < 10e6


# --- the hub, offline ----------------------------------------------------------------------------


def test_hub_id(model, expected, tmp_path):
    """Against a stand-in for the hub: flat, only a .bin, as google/ddpm-ema-celebahq-256."""
    write("old-bin", model, tmp_path)
    asked = []

    def download(repo, name, revision=None, token=None):
        asked.append((repo, name))
        if not (tmp_path / name).is_file():
            raise EntryNotFoundError(name)
        return str(tmp_path / name)

    with mock.patch("jaxdiff.checkpoints.sources.hf_hub_download", download):
        same(jd.load("google/ddpm-ema-celebahq-256")[0], expected[0])
    assert {repo for repo, _ in asked} == {"google/ddpm-ema-celebahq-256"}


def test_hub_cache_works_offline(model, expected, tmp_path, monkeypatch):
    """A real huggingface_hub cache, with the network off."""
    revision = "0" * 40
    repo = tmp_path / "models--team--faces"
    snapshot = repo / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(revision)
    write("sharded", model, snapshot)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    same(jd.load("team/faces")[0], expected[0])
    with pytest.raises(FileNotFoundError, match="hub could not be reached"):
        jd.load("team/others")


def test_hub_unreachable():
    error = LocalEntryNotFoundError("offline")
    with mock.patch("jaxdiff.checkpoints.sources.hf_hub_download", side_effect=error):
        with pytest.raises(FileNotFoundError, match="no such folder here"):
            jd.load("nobody/nothing")


# --- faults ---------------------------------------------------------------------------------------


def test_one_error_lists_every_wrong_tensor(model, tmp_path):
    state = model.state_dict()
    missing = ["conv_in.weight", "mid_block.attentions.0.to_q.bias"]
    for name in missing:
        del state[name]
    state["conv_out.bias"] = torch.zeros(7)
    state["extra.weight"] = torch.zeros(1)
    torch.save(state, flat(model, tmp_path) / f"{WEIGHTS}.bin")
    with pytest.raises(ValueError) as e:
        jd.load(tmp_path)
    for part in (
        *missing,
        "2 missing",
        "1 unexpected: extra.weight",
        "1 misshapen: conv_out.bias",
        "[7]",
    ):
        assert part in str(e.value)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("kind", ["pipeline", "pipeline-bin"])
def test_truncated(kind, model, tmp_path):
    write(kind, model, tmp_path)
    file = next((tmp_path / "unet").glob(f"{WEIGHTS}*"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ValueError, match=file.name):
        jd.load(tmp_path)


class Evil:
    def __reduce__(self):
        return (os.system, ("touch /tmp/jaxdiff-was-here",))


@pytest.mark.parametrize(
    "content",
    [{"a": 1}, {"a": [torch.zeros(1)]}, [torch.zeros(1)], {"a": Evil()}, {"a": np.zeros(2)}],
    ids=["int", "list-of-tensors", "list", "code", "numpy"],
)
def test_a_bin_with_anything_but_tensors(content, model, tmp_path):
    torch.save(content, flat(model, tmp_path) / f"{WEIGHTS}.bin")
    with pytest.raises(ValueError, match=r"besides tensors|dictionary of tensors|nothing besides"):
        jd.load(tmp_path)
    assert not Path("/tmp/jaxdiff-was-here").exists()


@pytest.mark.parametrize("archive", [True, False], ids=["zip", "before-1.6"])
def test_reader_agrees_with_torch(archive, tmp_path):
    """All dtypes, views, transposed and empty tensors, parameters."""
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    state = OrderedDict(
        whole=base, row=base[1], part=base[1:3, 2:5], transposed=base.T, scalar=torch.tensor(3.0),
        empty=torch.zeros(0, 3), expanded=torch.ones(1).expand(5), again=base,
        parameter=torch.nn.Parameter(torch.ones(2)),
        **{str(d): torch.arange(5).to(d) for d in (torch.float64, torch.float16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)},
    )  # fmt: skip
    torch.save(state, tmp_path / "a.bin", _use_new_zipfile_serialization=archive)
    ours = read_torch_zip(tmp_path / "a.bin")
    assert ours.keys() == state.keys()
    for name, tensor in state.items():
        np.testing.assert_array_equal(ours[name].read(), tensor.detach().numpy())
        assert ours[name].read().dtype == ours[name].dtype == str(tensor.dtype)[6:]


def test_reader_checks_bounds(tmp_path):
    """A pickle whose tensor reaches past its storage must not read other memory."""
    torch.save({"a": torch.zeros(4)}, tmp_path / "a.bin")
    with zipfile.ZipFile(tmp_path / "a.bin") as source:
        with zipfile.ZipFile(tmp_path / "b.bin", "w") as target:
            for name in source.namelist():
                data = source.read(name)
                if name.endswith("data.pkl"):
                    assert data.count(b"K\x04\x85") == 1  # the shape (4,)
                    data = data.replace(b"K\x04\x85", b"K\x7f\x85")
                target.writestr(name, data)
    with pytest.raises(ValueError, match="past its storage"):
        read_torch_zip(tmp_path / "b.bin")
    (tmp_path / "c.bin").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ValueError, match=r"no file of torch\.save"):
        read_torch_zip(tmp_path / "c.bin")


def test_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"neither unet/config\.json nor config\.json"):
        jd.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        jd.load(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="faces64"):
        jd.load("faces65")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not readable as JSON"):
        jd.load(tmp_path)


def test_missing_weights_and_shards(model, tmp_path):
    flat(model, tmp_path)
    with pytest.raises(FileNotFoundError, match="no weights"):
        jd.load(tmp_path)
    write("sharded", model, tmp_path)
    sorted(tmp_path.glob("*.safetensors"))[1].unlink()
    with pytest.raises(FileNotFoundError, match="shard"):
        jd.load(tmp_path)


def test_dtype(model, tmp_path):
    with pytest.raises(ValueError, match="jax_enable_x64"):
        jd.load("faces64", dtype=jnp.float64)
    with pytest.raises(ValueError, match="floating"):
        jd.load("faces64", dtype=jnp.int32)


@pytest.mark.parametrize(
    "changes, field",
    [
        (dict(down_block_types=("CrossAttnDownBlock2D", "DownBlock2D")), r"down_block_types\[0\]"),
        (dict(up_block_types=("UpBlock2D",)), "up_block_types"),
        (dict(mid_block_type="UNetMidBlock2DCrossAttn"), "mid_block_type"),
        (dict(act_fn="tanh"), "act_fn"),
        (dict(norm_num_groups=5), "norm_num_groups"),
        (dict(norm_num_groups=None), "norm_num_groups"),
        (dict(time_embedding_type="learned"), "num_train_timesteps"),
        (dict(layers_per_block=0), "layers_per_block"),
        (dict(sample_size=-8), "sample_size"),
        (dict(attention_head_dim=64), "attention_head_dim"),
        (dict(dropout=1.5), "dropout"),
        (dict(downsample_padding=2), "downsample_padding"),
        (dict(class_embed_type="projection"), "class_embed_type"),
        (dict(_class_name="UNet2DConditionModel"), "_class_name"),
        (dict(down_block_types=("DownBlock2D", "SkipDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D",) * 3, block_out_channels=(8, 8, 8)), "down_block_types"),
    ],
    ids=str,
)  # fmt: skip
def test_config_names_the_field_at_fault(changes, field):
    with pytest.raises(ValueError, match=field):
        jd.UNet2DConfig.from_dict(CONFIG | changes)


def test_save_is_atomic_and_keeps_other_files(expected, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    jd.save(tmp_path, *expected)
    before = (tmp_path / f"{WEIGHTS}.safetensors").read_bytes()
    with mock.patch("jaxdiff.checkpoints.diffusers.save_file", side_effect=OSError("disk full")):
        with pytest.raises(OSError, match="disk full"):
            jd.save(tmp_path, *expected)
    assert (tmp_path / f"{WEIGHTS}.safetensors").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [
            "notes.txt",
            "config.json",
            "scheduler_config.json",
            "model_index.json",
            f"{WEIGHTS}.safetensors",
        ]
    )
    (tmp_path / "unet").mkdir()
    with pytest.raises(FileExistsError, match="unet/"):
        jd.save(tmp_path, *expected)


def test_import_and_restore_without_torch(tmp_path):
    """torch, diffusers and interactive matplotlib made unimportable, in a process of its own."""
    script = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        root = name.split(".")[0]
        if root in ("torch", "diffusers", "tkinter", "PyQt6", "PySide6") or name in (
            "matplotlib.pyplot", "matplotlib.backends.backend_tkagg", "matplotlib.backends.backend_qtagg"
        ):
            raise ModuleNotFoundError(f"{name} is absent here", name=name)
sys.meta_path.insert(0, Absent())
import importlib.util
assert importlib.util.find_spec.__module__
import jaxdiff, jax
assert not jax.config.jax_enable_x64 and jax.config.jax_compilation_cache_dir is None
from jaxdiff.cli import main
sys.argv = ["jaxdiff", "restore", "--steps", "2", "--samples", "1"]
main()
"""
    env = os.environ | {
        "XLA_FLAGS": xla_flags(devices=1),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    made = {p.name for p in (tmp_path / "restored").iterdir()}
    assert {"degraded.png", "restored.png", "comparison.png", "metrics.json"} <= made
    assert json.loads((tmp_path / "restored/metrics.json").read_text())["psnr_restored"] > 0
    shutil.rmtree(tmp_path)


def test_the_callers_device(tiny):
    """JAX's contexts are a thread's own; the threads that read keep to the caller's."""
    device = jax.devices()[-1]
    with jax.default_device(device):
        unet, _ = jd.load(tiny)
    assert all(leaf.devices() == {device} for leaf in jax.tree.leaves(nnx.state(unet)))
