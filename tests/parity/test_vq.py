"""VQModel against diffusers': encoder, codes, decoder, and gradients through them."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import VQModel as TorchVQ
from flax import nnx
from safetensors.torch import load_file, save_file

from jaxdiff.checkpoints.names import to_torch_layout, torch_name
from jaxdiff.checkpoints.vq import read_vq, vq_from_tensors
from jaxdiff.nn.vq import VQConfig, VQModel
from tests.parity.reference import nchw, seeded
from tests.parity.test_unet import relative

SMALL = dict(
    block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2,
    up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4, num_vq_embeddings=32, sample_size=16,
)  # fmt: skip
CASES = {
    "small": {},
    "codes of another width": dict(vq_embed_dim=2, layers_per_block=2, act_fn="relu"),
    "no attention": dict(mid_block_add_attention=False, latent_channels=4),
}
WEIGHTS = "diffusion_pytorch_model.safetensors"


@partial(jax.jit, static_argnames="call")
def value_and_gradient(vq, x, weight, call):
    out, pullback = jax.vjp(lambda x: call(vq, x), x)
    return out, pullback(weight)[0]


@pytest.mark.parametrize("name", CASES)
def test_same_function_in_float64(name, tmp_path, x64):
    model = seeded(TorchVQ(**SMALL | CASES[name]))
    model.save_pretrained(tmp_path / "vqvae")
    vq = vq_from_tensors(*read_vq(tmp_path), jnp.float64)
    model, rng = model.double(), np.random.default_rng(0)
    calls = {
        VQModel.encode: (3, lambda x: model.encode(x).latents),
        VQModel.decode: (vq.config.embed_dim, lambda z: model.decode(z).sample),
        partial(VQModel.decode, quantize=False): (
            vq.config.embed_dim,
            lambda z: model.decode(z, force_not_quantize=True).sample,
        ),
    }
    for call, (channels, theirs) in calls.items():
        x = rng.standard_normal((2, 8, 4, channels))
        given = nchw(x).requires_grad_(True)
        out = theirs(given)
        weight = torch.tensor(rng.standard_normal(out.shape))
        (gradient,) = torch.autograd.grad((out * weight).sum(), given)
        ours = value_and_gradient(vq, x, weight.permute(0, 2, 3, 1).numpy(), call)
        assert relative(nchw(ours[0]).numpy(), out.numpy(force=True)) <= 1e-10
        assert relative(nchw(ours[1]).numpy(), gradient.numpy()) <= 1e-10


def test_quantising_is_the_nearest_code(tmp_path):
    model = seeded(TorchVQ(**SMALL))
    model.save_pretrained(tmp_path)
    vq = vq_from_tensors(*read_vq(tmp_path))
    codes = np.asarray(vq.quantize.embedding.embedding[...])
    z = np.random.default_rng(0).standard_normal((1, 5, 7, 3)).astype("f")
    nearest = np.square(z[..., None, :] - codes).sum(-1).argmin(-1)
    np.testing.assert_allclose(vq.quantize(z), codes[nearest], atol=1e-6)


@pytest.mark.parametrize("old", [False, True])
def test_round_trip_is_bit_exact(old, tmp_path):
    """As CompVis's repository too, whose attention has its first names."""
    model = seeded(TorchVQ(**SMALL))
    model.save_pretrained(tmp_path / "vqvae")
    path = tmp_path / "vqvae" / WEIGHTS
    if old:
        names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
        state = load_file(path)
        for new, first in names.items():
            state = {k.replace(f".{new}.", f".{first}."): v for k, v in state.items()}
        assert any("proj_attn" in name for name in state)
        save_file(state, path)
    vq = vq_from_tensors(*read_vq(tmp_path))
    back = {
        torch_name(p): to_torch_layout(p, np.asarray(param[...]))
        for p, param in nnx.to_flat_state(nnx.state(vq))
    }
    expected = model.state_dict()
    assert back.keys() == expected.keys()
    assert all(np.array_equal(back[k], expected[k].numpy()) for k in expected)
    written = json.loads((tmp_path / "vqvae/config.json").read_text())
    assert json.loads(json.dumps(vq.config.to_dict())).items() <= written.items()


def test_remat_changes_no_value(tmp_path):
    model = seeded(TorchVQ(**SMALL))
    model.save_pretrained(tmp_path)
    vq = vq_from_tensors(*read_vq(tmp_path))
    z = np.random.default_rng(0).standard_normal((1, 4, 4, 3)).astype("f")
    weight = np.ones((1, 8, 8, 3), "f")
    plain = value_and_gradient(vq, z, weight, VQModel.decode)
    again = value_and_gradient(vq, z, weight, partial(VQModel.decode, remat=True))
    for a, b in zip(plain, again):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_no_decoder(tmp_path):
    with pytest.raises(ValueError, match="no decoder"):
        read_vq(tmp_path)
    model = TorchVQ(**SMALL)
    model.save_pretrained(tmp_path / "vqvae")
    path = tmp_path / "vqvae" / WEIGHTS
    state = load_file(path)
    save_file({k: v for k, v in state.items() if not k.startswith("decoder.")}, path)
    with pytest.raises(ValueError, match="have no decoder"):
        read_vq(tmp_path)
    del state["decoder.conv_in.bias"]
    save_file(state, path)
    with pytest.raises(ValueError, match=r"1 missing: decoder\.conv_in\.bias"):
        vq_from_tensors(*read_vq(tmp_path))
    path.unlink()
    with pytest.raises(FileNotFoundError, match="no weights"):
        read_vq(tmp_path)
    (tmp_path / "vqvae/config.json").write_text('{"_class_name": "AutoencoderKL"}')
    with pytest.raises(ValueError, match="AutoencoderKL"):
        read_vq(tmp_path)


@pytest.mark.parametrize(
    "changes, field",
    [
        (dict(up_block_types=("UpDecoderBlock2D",)), "up_block_types"),
        (dict(down_block_types=("AttnDownEncoderBlock2D",) * 2), "down_block_types"),
        (dict(norm_type="spatial"), "norm_type"),
        (dict(norm_num_groups=5), "norm_num_groups"),
        (dict(block_out_channels=[]), "block_out_channels"),
        (dict(block_out_channels=[4] * 1000), "block_out_channels"),
        (dict(layers_per_block=10**9), "layers_per_block"),
        (dict(latent_channels="3"), "latent_channels"),
        (dict(vq_embed_dim=0), "vq_embed_dim"),
        (dict(act_fn="tanh"), "act_fn"),
        (dict(lookup_from_codebook=True), "lookup_from_codebook"),
    ],
    ids=str,
)
def test_config_names_the_field_at_fault(changes, field):
    with pytest.raises(ValueError, match=field):
        VQConfig.from_dict(SMALL | changes)


def test_an_unknown_field_is_a_warning():
    with pytest.warns(UserWarning, match="colour"):
        VQConfig.from_dict(SMALL | {"colour": 1})


def test_wrong_shapes(tmp_path):
    TorchVQ(**SMALL).save_pretrained(tmp_path)
    vq = vq_from_tensors(*read_vq(tmp_path))
    for call, shape in (
        (vq.encode, (1, 8, 8, 1)),
        (vq.encode, (1, 9, 8, 3)),
        (vq.decode, (4, 4, 3)),
    ):
        with pytest.raises(ValueError, match=r"[xz]: "):
            call(jnp.zeros(shape))
