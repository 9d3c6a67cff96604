"""The published networks whose config is diffusers' own: every tensor, by name and shape."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from diffusers import VQModel as TorchVQ
from flax import nnx

import jaxdiff as jd
from jaxdiff.checkpoints.diffusers import unet_from_tensors
from jaxdiff.checkpoints.names import torch_name, torch_shape
from jaxdiff.nn.abstract import abstract
from jaxdiff.nn.unet import abstract_unet
from jaxdiff.nn.vq import VQConfig, VQModel
from tests.parity.configs import CONFIGS
from tests.parity.reference import lazy, nchw, torch_unet
from tests.parity.test_unet import relative


def blocks(kinds, attends, down="Down", up="Up"):
    """Block types of the levels down and up; `attends` are the levels with attention."""
    names = ["Attn" if i in attends else "" for i in range(kinds)]

    def kind(name, which):
        return f"{name}{which}Block2D" if name or "sample" not in which else f"{which}Block2D"

    return dict(
        down_block_types=tuple(kind(n, down if not n or "Skip" in down else "Down") for n in names),
        up_block_types=tuple(kind(n, up if not n or "Skip" in up else "Up") for n in names[::-1]),
    )


RESNET = dict(down="ResnetDownsample", up="ResnetUpsample")
CONSISTENCY = dict(
    downsample_type="resnet", upsample_type="resnet", attention_head_dim=64, norm_eps=1e-5,
    attn_norm_num_groups=32, resnet_time_scale_shift="scale_shift",
)  # fmt: skip
PUBLISHED = {
    "google/ncsnpp-celebahq-256": dict(
        **blocks(7, {4}, "SkipDown", "SkipUp"), sample_size=256, norm_num_groups=None,
        block_out_channels=(128, 128, 256, 256, 256, 256, 256), mid_block_scale_factor=2**0.5,
        time_embedding_type="fourier", attention_head_dim=None, norm_eps=1e-6,
    ),
    "openai/diffusers-cd_imagenet64_l2": CONSISTENCY | dict(
        **blocks(4, {1, 2, 3}, **RESNET), sample_size=64, block_out_channels=(192, 384, 576, 768),
        layers_per_block=3, num_class_embeds=1000,
    ),
    "openai/diffusers-cd_cat256_l2": CONSISTENCY | dict(
        **blocks(6, {3, 4, 5}, **RESNET), sample_size=256,
        block_out_channels=(256, 256, 512, 512, 1024, 1024),
    ),
    "CompVis/ldm-celebahq-256": dict(
        **blocks(4, {1, 2, 3}), sample_size=64, block_out_channels=(224, 448, 672, 896),
        attention_head_dim=32,
    ),
}  # fmt: skip


def ours(network):
    return {
        torch_name(path): torch_shape(path, p.shape)
        for path, p in nnx.to_flat_state(nnx.state(network))
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes(name):
    with torch.device("meta"):
        model = UNet2DModel(**PUBLISHED[name])
    expected = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    assert ours(abstract_unet(jd.UNet2DConfig(**PUBLISHED[name]))) == expected


def test_names_and_shapes_of_the_decoder():
    """CompVis/ldm-celebahq-256's."""
    config = dict(
        block_out_channels=(128, 256, 512), down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3, layers_per_block=2, num_vq_embeddings=8192, sample_size=256,
    )  # fmt: skip
    with torch.device("meta"):
        model = TorchVQ(**config)
    expected = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    assert ours(abstract(lambda rngs: VQModel(VQConfig(**config), rngs=rngs))) == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in PUBLISHED if "cat256" not in n])
def test_float32_at_the_published_config(name):
    """Small images: the networks are as large as they are."""
    config = jd.UNet2DConfig(**PUBLISHED[name])
    model = torch_unet(PUBLISHED[name])
    unet = unet_from_tensors(config, lazy(model), jnp.float32)
    size = 2 * config.downsampling
    x = np.random.default_rng(0).standard_normal((1, size, size, 3)).astype("f")
    classes = config.num_class_embeds and 207
    labels = np.array([classes]) if classes else None
    t = 0.7 if config.time_embedding_type == "fourier" else 500.0
    with torch.no_grad():
        given = None if labels is None else torch.tensor(labels)
        out = model(nchw(x), torch.tensor([t]), class_labels=given).sample
    found = jax.jit(type(unet).__call__)(unet, x, np.float32(t), labels)
    assert relative(nchw(found).numpy(), out.numpy()) <= 1e-5


def test_frequencies_under_two_names(tmp_path):
    """As diffusers' first releases wrote NCSN++."""
    model = torch_unet(CONFIGS["ncsnpp"])
    model.save_config(tmp_path)
    DDPMScheduler().save_pretrained(tmp_path)
    state = model.state_dict()
    torch.save(
        state | {"time_proj.W": state["time_proj.weight"]}, tmp_path / "diffusion_pytorch_model.bin"
    )
    unet, _ = jd.load(tmp_path)
    np.testing.assert_array_equal(unet.time_proj.kernel[...], state["time_proj.weight"].numpy())
    assert unet.dtype == jnp.float32
