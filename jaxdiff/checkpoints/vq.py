"""Read the decoder of a latent diffusion checkpoint: diffusers' VQModel."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from jaxdiff.checkpoints.diffusers import network_from_tensors
from jaxdiff.checkpoints.sources import finder
from jaxdiff.checkpoints.tensors import Tensors
from jaxdiff.checkpoints.weights import open_weights
from jaxdiff.nn.abstract import abstract
from jaxdiff.nn.vq import VQConfig, VQModel
from jaxdiff.util.files import read_json


def read_vq(
    source: str | Path, find: Callable[[str], Path | None] | None = None
) -> tuple[VQConfig, Tensors]:
    """The configuration and the tensors of a VQModel: in `vqvae/` of a checkpoint, or alone.

    Args:
        source: a local folder or a hub id, such as `"CompVis/ldm-celebahq-256"`.
        find: from a file's name in it to its path, where that is known.

    Raises:
        ValueError: where there is no such decoder, its config is none, or its weights are not whole.
        FileNotFoundError: where there is no such checkpoint, or no weights beside the config.
    """
    find = find or finder(source)
    prefix = "vqvae/" if (path := find("vqvae/config.json")) else ""
    if (path := path or find("config.json")) is None:
        raise ValueError(f"{source}: no decoder: expected vqvae/config.json")
    try:
        config = VQConfig.from_dict(read_json(path))
    except ValueError as e:
        raise ValueError(f"{path}: no decoder of latents: {e}") from e
    tensors = open_weights(source, find, prefix)
    if not any(name.startswith("decoder.") for name in tensors):
        raise ValueError(f"{source}: the weights of {prefix or 'the VQModel'} have no decoder")
    return config, tensors


def vq_from_tensors(config: VQConfig, tensors: Tensors, dtype: Any = jnp.float32) -> VQModel:
    """A VQModel holding `tensors` (torch's names and layout), which are read a few at a time.

    Raises:
        ValueError: lists every missing, unexpected and misshapen tensor.
    """
    network = abstract(lambda rngs: VQModel(config, rngs=rngs))
    return network_from_tensors(network, tensors, dtype)
