"""diffusers in float64: its time embedding, which is float32 whatever the model's dtype, lifted."""

import contextlib
import math
from unittest import mock

import torch
from diffusers.models import embeddings


def _embedding64(
    timesteps,
    embedding_dim,
    flip_sin_to_cos=False,
    downscale_freq_shift=1,
    scale=1,
    max_period=10000,
):
    """diffusers' get_timestep_embedding, float64 where it has float32."""
    half = embedding_dim // 2
    exponent = -math.log(max_period) * torch.arange(half, dtype=torch.float64)
    frequencies = torch.exp(exponent / (half - downscale_freq_shift))
    angle = scale * timesteps[:, None].double() * frequencies
    parts = [torch.sin(angle), torch.cos(angle)]
    embedding = torch.cat(parts[::-1] if flip_sin_to_cos else parts, -1)
    return torch.nn.functional.pad(embedding, (0, embedding_dim % 2))


@contextlib.contextmanager
def lifted_time_embedding():
    """Let diffusers compute its sinusoidal time embedding in float64."""
    with mock.patch.object(embeddings, "get_timestep_embedding", _embedding64):
        yield
