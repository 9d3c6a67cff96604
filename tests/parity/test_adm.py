"""guided-diffusion's checkpoints: every tensor, the same function, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, UNet2DModel

import jaxdiff as jd
from convert.guided_diffusion import ADM, FFHQ, IMAGENET
from jaxdiff.checkpoints.adm import (
    adm_config,
    is_adm,
    read_adm,
    scheduler_config,
    to_adm,
    to_diffusers,
)
from jaxdiff.checkpoints.diffusers import unet_from_tensors
from jaxdiff.checkpoints.tensors import Tensor
from tests.parity.reference import lazy, nchw, seeded
from tests.parity.test_unet import forward_and_gradient, relative

SMALL = dict(channels=32, multipliers=(1, 2), blocks=1, attention={1}, head=16)
LARGER = dict(multipliers=(1, 2, 3), blocks=2, attention={1})
FIELDS = {"num_head_channels": 16}


def save(model, path, **kwargs):
    torch.save(model.state_dict(), path, **kwargs)
    return path


@pytest.mark.parametrize(
    "architecture, count, size, attends",
    [(FFHQ, 93_563_910, 256, [4]), (IMAGENET, 552_814_086, 256, [3, 4, 5])],
)
def test_the_published_networks_are_whole(architecture, count, size, attends):
    """Names and shapes both ways, of networks without memory; the config is the tensors' own."""
    with torch.device("meta"):
        model = ADM(**architecture)
    assert sum(p.numel() for p in model.parameters()) == count
    theirs = {name: Tensor(tuple(t.shape), list) for name, t in model.state_dict().items()}
    assert is_adm(theirs)
    config = adm_config(theirs)
    assert config.sample_size == size and config.attention_head_dim == 64
    assert config.out_channels == 6
    assert [i for i, b in enumerate(config.down_block_types) if "Attn" in b] == attends
    assert scheduler_config(config)["variance_type"] == "learned_range"
    ours = to_diffusers(config, theirs)
    fields = {k: v for k, v in config.to_dict().items() if not k.startswith("_")}
    with torch.device("meta"):
        expected = UNet2DModel(**fields).state_dict()
    assert {n: t.shape for n, t in ours.items()} == {n: tuple(t.shape) for n, t in expected.items()}
    back = to_adm(config, ours)
    assert {n: t.shape for n, t in back.items()} == {n: t.shape for n, t in theirs.items()}


def test_the_scripts_own_fields_agree():
    """As DPS's ffhq_model_config.yaml has them; a field that differs is named."""
    with torch.device("meta"):
        model = ADM(**FFHQ)
    theirs = {name: Tensor(tuple(t.shape), list) for name, t in model.state_dict().items()}
    fields = dict(
        image_size=256, num_channels=128, num_res_blocks=1, channel_mult="", learn_sigma=True,
        class_cond=False, use_checkpoint=False, attention_resolutions=16, num_heads=4,
        num_head_channels=64, num_heads_upsample=-1, use_scale_shift_norm=True, dropout=0.0,
        resblock_updown=True, use_fp16=False, use_new_attention_order=False,
    )  # fmt: skip
    assert adm_config(theirs, fields) == adm_config(theirs)
    for name, wrong in (
        ("num_channels", 256),
        ("num_res_blocks", 2),
        ("channel_mult", "1,2,3,4"),
        ("attention_resolutions", "32,16,8"),
        ("learn_sigma", False),
        ("class_cond", True),
        ("use_scale_shift_norm", False),
        ("resblock_updown", False),
        ("num_head_channels", 48),
    ):
        with pytest.raises(ValueError, match=name):
            adm_config(theirs, fields | {name: wrong})
    with pytest.raises(ValueError, match="num_heads"):
        adm_config(theirs, {"num_heads": 3})
    assert adm_config(theirs, {"num_heads": 8}).attention_head_dim == 64


@pytest.mark.parametrize(
    "changes",
    [
        LARGER,
        dict(new_order=True),
        dict(by_resnet=False, shift=False, classes=10, outs=3, attention=set()),
    ],
    ids=str,
)
def test_same_function_in_float64(changes, tmp_path, x64):
    model = seeded(ADM(**SMALL | changes))
    path = save(model, tmp_path / "a.pt")
    fields = FIELDS | {"use_new_attention_order": changes.get("new_order", False)}
    config, tensors = read_adm(path, fields)
    unet = unet_from_tensors(config, tensors, jnp.float64)
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((2, 8, 8, 3)), np.array([999.0, 37.0])
    labels = np.array([3, 7]) if "classes" in changes else None
    weight = rng.standard_normal((2, 8, 8, config.out_channels))
    given = nchw(x).requires_grad_(True)
    model = model.double()
    out = model(given, torch.tensor(t), None if labels is None else torch.tensor(labels))
    (gradient,) = torch.autograd.grad((out * nchw(weight)).sum(), given)
    ours = forward_and_gradient(unet, x, t, labels, weight)
    assert relative(nchw(ours[0]).numpy(), out.detach().numpy()) <= 1e-10
    assert relative(nchw(ours[1]).numpy(), gradient.numpy()) <= 1e-10
    if changes.get("new_order"):  # the orders are not the same function
        swapped = unet_from_tensors(*read_adm(path, FIELDS), jnp.float64)
        assert (
            relative(
                nchw(forward_and_gradient(swapped, x, t, labels, weight)[0]).numpy(),
                out.numpy(force=True),
            )
            > 1e-3
        )


@pytest.mark.parametrize(
    "changes",
    [
        LARGER,
        dict(multipliers=(1,), attention={0}),
        dict(by_resnet=False, multipliers=(1, 1, 2, 2)),
    ],
    ids=str,
)
def test_both_containers_hold_the_same(changes, tmp_path):
    """The config is found too where there is one level, or four and convolutions between them."""
    model = seeded(ADM(**SMALL | changes))
    config, tensors = read_adm(save(model, tmp_path / "a.pt"), FIELDS)
    legacy = save(model, tmp_path / "b.pt", _use_new_zipfile_serialization=False)
    other, others = read_adm(legacy, FIELDS)
    assert config == other and tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor.read(), others[name].read())
    unet_from_tensors(config, tensors, jnp.float32)


@pytest.mark.parametrize("changes", [{}, dict(by_resnet=False, outs=3)], ids=str)
def test_as_a_folder_of_diffusers(changes, tmp_path):
    """What `jd.save` writes is, to diffusers, the same network with the same kind of noise."""
    model = seeded(ADM(**SMALL | changes))
    config, tensors = read_adm(save(model, tmp_path / "a.pt"), FIELDS)
    schedule = jd.Schedule.from_config(scheduler_config(config))
    jd.save(tmp_path / "converted", unet_from_tensors(config, tensors, jnp.float32), schedule)
    pipeline = DDPMPipeline.from_pretrained(tmp_path / "converted", low_cpu_mem_usage=False)
    assert pipeline.scheduler.config.variance_type == (
        "fixed_large" if changes else "learned_range"
    )
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([999.0, 37.0])
    with torch.no_grad():
        assert relative(pipeline.unet(x, t).sample.numpy(), model(x, t).numpy()) <= 1e-5


@pytest.mark.parametrize("new_order", [True, False])
def test_round_trip_is_bit_exact(new_order):
    model = seeded(ADM(**SMALL, classes=5))
    theirs = lazy(model)
    config = adm_config(theirs, FIELDS)
    back = to_adm(config, to_diffusers(config, theirs, new_order), new_order)
    assert back.keys() == theirs.keys()
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(back[name].read(), tensor.read())


@pytest.mark.slow
def test_float32_at_the_published_config(tmp_path):
    model = seeded(ADM(**FFHQ))
    path = save(model, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    unet = unet_from_tensors(*read_adm(path), jnp.float32)
    x = np.random.default_rng(0).standard_normal((1, 64, 64, 3)).astype("f")
    with torch.no_grad():
        out = model(nchw(x), torch.tensor([500.0]))
    ours = jax.jit(type(unet).__call__)(unet, x, 500)
    assert relative(nchw(ours).numpy(), out.numpy()) <= 1e-5


def test_names_of_a_wrapped_module(tmp_path):
    state = {f"module.{k}": v for k, v in ADM(**SMALL).state_dict().items()}
    torch.save(state, tmp_path / "a.pt")
    _, tensors = read_adm(tmp_path / "a.pt", FIELDS)
    assert "conv_in.weight" in tensors


@pytest.mark.parametrize(
    "fault, fields, message",
    [
        (lambda s: {"a": torch.zeros(1)}, FIELDS, "no checkpoint of guided-diffusion"),
        (lambda s: {}, FIELDS, "no checkpoint of guided-diffusion"),
        (lambda s: s, {"num_head_channels": 48}, "num_head_channels: heads of 48 channels do not divide an attention's 64"),
        (lambda s: s, {"num_head_channels": 0}, "num_head_channels: expected a positive integer"),
        (lambda s: s, {"num_heads": 7}, "num_heads: .* of one size"),
        (lambda s: {k: v for k, v in s.items() if not k.startswith("output_blocks.2")}, FIELDS, "output_blocks"),
        (lambda s: {k: v for k, v in s.items() if "input_blocks.3.0.out" not in k}, FIELDS, "input_blocks.3"),
        (lambda s: s | {"epoch": 3}, FIELDS, "epoch"),
    ],
    ids=range(8),
)  # fmt: skip
def test_bad_files(fault, fields, message, tmp_path):
    torch.save(fault(ADM(**SMALL).state_dict()), tmp_path / "a.pt")
    with pytest.raises(ValueError, match=message) as e:
        read_adm(tmp_path / "a.pt", fields)
    assert "a.pt" in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize(
    "name", ["time_embed.0.weight", "input_blocks.0.0.weight", "middle_block.1.qkv.weight"]
)
@pytest.mark.parametrize("shape", [(), (0,), (5,), (0, 32, 1)])
def test_shapes_of_no_network(name, shape, tmp_path):
    torch.save(ADM(**SMALL).state_dict() | {name: torch.zeros(shape)}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt: (not guided|qkv)"):
        read_adm(tmp_path / "a.pt", FIELDS)


@pytest.mark.parametrize("name", ["image_size", "num_head_channels", "num_heads"])
@pytest.mark.parametrize("value", ["64", 0, 1.5, True])
def test_fields_are_integers(name, value, tmp_path):
    torch.save(ADM(**SMALL).state_dict(), tmp_path / "a.pt")
    with pytest.raises(ValueError, match=name):
        read_adm(tmp_path / "a.pt", {name: value})


def test_tensors_of_another_network(tmp_path):
    state = ADM(**SMALL).state_dict()
    state["middle_block.1.qkv.weight"] = torch.zeros(100, 64, 1)
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="qkv: 100 rows"):
        read_adm(tmp_path / "a.pt", FIELDS)
    state = ADM(**SMALL).state_dict()
    del state["middle_block.0.in_layers.0.weight"]
    torch.save(state | {"more": torch.zeros(1)}, tmp_path / "a.pt")
    with pytest.raises(
        ValueError, match=r"1 missing: mid_block.resnets.0.norm1.weight.*1 unexpected: more"
    ):
        unet_from_tensors(*read_adm(tmp_path / "a.pt", FIELDS), jnp.float32)
