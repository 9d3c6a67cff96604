"""A prior from a checkpoint of any format."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from jaxdiff.checkpoints import formats
from jaxdiff.denoiser import Denoiser
from jaxdiff.priors.latent import LatentDecoder


def prior(
    source: str | Path,
    *,
    config: Mapping[str, Any] | str | Path | None = None,
    class_labels: Any = None,
    dtype: Any = jnp.float32,
    remat: bool = False,
    revision: str | None = None,
    token: str | None = None,
) -> Denoiser:
    """Load a prior that somebody has published, as a denoiser with its schedule and its decoder.

    The format is told by content, not by name; nothing in a file is run. Known are

    - folders of diffusers and hub ids: a `UNet2DModel` with a DDPM scheduler or one for its networks,
      with ScoreSdeVe (`google/ncsnpp-celebahq-256`), CMStochasticIterative
      (`openai/diffusers-cd_imagenet64_l2`), EDMEuler or FlowMatchEulerDiscrete; and one of latents
      with a `VQModel` (`CompVis/ldm-celebahq-256`);
    - a `.pt` of guided-diffusion (`ffhq_10m.pt`, `256x256_diffusion_uncond.pt`);
    - a `.pkl` of EDM (`edm-ffhq-64x64-uncond-vp.pkl`);
    - the weights of a `UNet2DModel` alone, with its config.

    Args:
        source: "photos64", "faces64", a folder, a file, or a hub id.
        config: fields that the tensors do not say, or a file of JSON with them: of guided-diffusion
            `num_head_channels`, `use_new_attention_order`, `noise_schedule` and their like, of a
            UNet2DModel its config.json. What it says of the tensors must be so.
        class_labels: of a class-conditional network, as `Denoiser` takes them.
        dtype: of the weights and the computation, as `jd.load` takes it.
        remat: as of `Denoiser`.
        revision, token: for the hub, as `jd.load` takes them.

    Raises:
        FileNotFoundError: where there is no such checkpoint. OSError: where the hub does not answer.
        ValueError: for a file of no known format, a damaged one, or one that wants to run code; an
            unknown scheduler; a config of another network; a decoder that is missing; class labels that are
            missing or none.

    Example:
        >>> import jaxdiff as jd
        >>> denoiser = prior("faces64")
        >>> denoiser.shape, type(denoiser.schedule).__name__
        ((64, 64, 3), 'DDPMSchedule')
    """
    network, schedule, decoder = formats.read(source, config, dtype, revision, token)
    decode = None
    if decoder is not None:
        decode = LatentDecoder(decoder, decoder.config.scaling_factor, remat)
    return Denoiser(network, schedule, class_labels, decode, remat)
