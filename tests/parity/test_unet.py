"""UNet2D against diffusers' UNet2DModel: values, gradients, and the way there and back."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

import jaxdiff as jd
from convert.lift import lifted_time_embedding
from tests.conftest import shared
from tests.parity.configs import CONFIGS, combinations
from tests.parity.reference import inputs, torch_forward_and_gradient, torch_unet


def relative(a, b):
    return np.max(np.abs(np.asarray(a) - b)) / np.max(np.abs(b))


@jax.jit
def forward_and_gradient(unet, x, t, labels, weight):
    out, vjp = jax.vjp(lambda x: unet(x, t, labels), x)
    return out, vjp(weight)[0]


def test_grid_covers_every_option():
    used = {(k, str(v)) for c in CONFIGS.values() for k, v in c.items()}
    blocks = {
        b for c in CONFIGS.values() for k in ("down_block_types", "up_block_types") for b in c[k]
    }
    assert len(CONFIGS) >= 40
    for kind in ("", "Attn", "Skip", "AttnSkip"):
        assert {f"{kind}DownBlock2D", f"{kind}UpBlock2D"} <= blocks
    assert {"ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D"} <= blocks
    assert {("class_embed_type", "timestep"), ("class_embed_type", "identity")} <= used


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n in combinations() else ()) for n in CONFIGS],
)
def test_same_function_in_float64(name, tmp_path, x64):
    config = CONFIGS[name]
    model = torch_unet(config)
    model.save_pretrained(tmp_path)
    DDPMScheduler().save_pretrained(tmp_path)
    unet, _ = jd.load(tmp_path, dtype=jnp.float64)
    x, t, labels = inputs(config)
    weight = np.random.default_rng(1).standard_normal(
        (*x.shape[:-1], config.get("out_channels", 3))
    )
    with lifted_time_embedding():
        out, gradient = torch_forward_and_gradient(model.double(), x, t, labels, weight)
    ours = forward_and_gradient(unet, x, t, labels, weight)
    assert ours[0].dtype == jnp.float64
    print(f"{name}: {relative(ours[0], out):.1e}, gradient {relative(ours[1], gradient):.1e}")
    assert relative(ours[0], out) <= 1e-10
    assert relative(ours[1], gradient) <= 1e-10


@pytest.mark.parametrize("name", CONFIGS)
def test_round_trip_is_bit_exact(name, tmp_path):
    model = torch_unet(CONFIGS[name])
    model.save_pretrained(tmp_path / "torch")
    DDPMScheduler(beta_end=0.03).save_pretrained(tmp_path / "torch")
    jd.save(tmp_path / "ours", *jd.load(tmp_path / "torch"))
    back = UNet2DModel.from_pretrained(tmp_path / "ours", low_cpu_mem_usage=False)
    expected, got = model.state_dict(), back.state_dict()
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[k], got[k]) for k in expected)
    drop = {"_use_default_values", "_name_or_path", "_diffusers_version"}
    strip = {k: v for k, v in model.config.items() if k not in drop}
    theirs = {k: v for k, v in back.config.items() if k not in drop}
    if name != "legacy-prefix":  # whose names come back in today's spelling
        assert json.loads(json.dumps(strip)) == json.loads(json.dumps(theirs))
    pipeline = DDPMPipeline.from_pretrained(tmp_path / "ours", low_cpu_mem_usage=False)
    assert pipeline.scheduler.config.beta_end == 0.03


@pytest.mark.parametrize("dtype, tolerance", [(jnp.float32, 1e-5), (jnp.bfloat16, 0.05)])
def test_lower_precision(dtype, tolerance, tmp_path):
    config = CONFIGS["celebahq-like"]
    model = torch_unet(config)
    model.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match=r"no scheduler_config\.json"):
        unet, _ = jd.load(tmp_path, dtype=dtype)
    x, t, _ = inputs(config)
    out, gradient = torch_forward_and_gradient(model, x, t, None, np.ones_like(x))
    ours = forward_and_gradient(unet, x.astype(dtype), t, None, np.ones(x.shape, dtype))
    assert ours[0].dtype == dtype
    assert relative(ours[0], out) <= tolerance
    assert relative(ours[1], gradient) <= tolerance


def save_as_old_bin(model, folder):
    """A checkpoint as Google's repositories hold it: flat, a .bin, the old attention names."""
    new_to_old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = {}
    for name, tensor in model.state_dict().items():
        for new, old in new_to_old.items():
            name = name.replace(f".{new}.", f".{old}.")
        state[name] = tensor
    torch.save(state, folder / "diffusion_pytorch_model.bin")


def test_celebahq_at_full_size(tmp_path):
    """113 million seeded weights at 256², float32, from a .bin with the old names."""
    folder = shared("celebahq256")
    config = json.loads((folder / "config.json").read_text())
    fields = {k: v for k, v in config.items() if not k.startswith("_")}
    model = torch_unet(fields)
    keys = json.loads((folder / "state_dict_keys.json").read_text())
    save_as_old_bin(model, tmp_path)
    saved = torch.load(tmp_path / "diffusion_pytorch_model.bin", weights_only=True, mmap=True)
    assert saved.keys() == {k["old_name"] for k in keys.values()}
    for name in ("config.json", "scheduler_config.json", "model_index.json"):
        (tmp_path / name).write_text((folder / name).read_text())
    unet, _ = jd.load(tmp_path)
    x, _, _ = inputs(fields, n=1)
    weight = np.random.default_rng(1).standard_normal(x.shape)
    t = np.array([500])
    out, gradient = torch_forward_and_gradient(model, x, t, None, weight)
    ours = forward_and_gradient(unet, x.astype("f"), t, None, weight.astype("f"))
    print(f"max |Δ|/max: {relative(ours[0], out):.1e}, gradient {relative(ours[1], gradient):.1e}")
    assert relative(ours[0], out) <= 1e-5
    assert relative(ours[1], gradient) <= 1e-5
