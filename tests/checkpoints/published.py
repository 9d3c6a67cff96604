"""One small checkpoint of each format that people publish, with its network in torch."""

import json
from pathlib import Path

import torch
from diffusers import (
    CMStochasticIterativeScheduler,
    DDIMScheduler,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    ScoreSdeVeScheduler,
    UNet2DModel,
    VQModel,
)

from convert.guided_diffusion import ADM
from tests.parity.configs import CONFIGS
from tests.parity.reference import seeded
from tests.parity.song import DDPMPP, EDMPrecond, write_edm

ADM_FIELDS = {"num_head_channels": 16, "image_size": 8}
TINY = dict(
    sample_size=8, block_out_channels=(8,), down_block_types=("DownBlock2D",),
    up_block_types=("UpBlock2D",), layers_per_block=1, norm_num_groups=4, mid_block_type=None,
)  # fmt: skip
NCSNPP = TINY | dict(
    block_out_channels=(16,), down_block_types=("SkipDownBlock2D",), up_block_types=("SkipUpBlock2D",),
    time_embedding_type="fourier", norm_num_groups=None,
)  # fmt: skip
CONSISTENCY = CONFIGS["consistency"] | dict(layers_per_block=1)
VQ = dict(
    block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2,
    up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4, num_vq_embeddings=32, sample_size=16,
    scaling_factor=0.7,
)  # fmt: skip


def write(kind: str, folder: Path) -> tuple[Path, torch.nn.Module]:
    """The path of a checkpoint of a kind, and its network."""
    if kind == "adm":
        network = seeded(ADM(channels=32, multipliers=(1,), blocks=1, attention={0}, head=16))
        torch.save(network.state_dict(), folder / "a.pt")
        return folder / "a.pt", network
    if kind == "edm":
        network = seeded(EDMPrecond(**DDPMPP | dict(channel_mult=(1,), attn_resolutions=())))
        return write_edm(folder / "a.pkl", network), network.model
    config, scheduler = {
        "ddpm": (TINY, DDPMScheduler()),
        "ncsn++": (NCSNPP, ScoreSdeVeScheduler()),
        "consistency": (CONSISTENCY, CMStochasticIterativeScheduler()),
        "flow": (TINY, FlowMatchEulerDiscreteScheduler(shift=2.0)),
        "latent": (
            TINY,
            DDIMScheduler(beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear", clip_sample=False),
        ),
    }[kind]  # fmt: skip
    network = seeded(UNet2DModel(**config))
    if kind == "ddpm":
        network.save_pretrained(folder)
        scheduler.save_pretrained(folder)
        return folder, network
    network.save_pretrained(folder / "unet")
    scheduler.save_pretrained(folder / "scheduler")
    if kind == "latent":
        seeded(VQModel(**VQ)).save_pretrained(folder / "vqvae")
        parts = {"vqvae": ["diffusers", "VQModel"], "unet": ["diffusers", "UNet2DModel"]}
        index = {"_class_name": "LDMPipeline", **parts, "scheduler": ["diffusers", "DDIMScheduler"]}
        (folder / "model_index.json").write_text(json.dumps(index))
    return folder, network


KINDS = ("ddpm", "adm", "ncsn++", "consistency", "edm", "flow", "latent")
