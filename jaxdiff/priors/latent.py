"""A decoder of latents as an operator: where a latent prior's states become images."""

from typing import NoReturn

import jax
import jax.numpy as jnp

from jaxdiff.nn.vq import VQModel
from jaxdiff.operators import Operator
from jaxdiff.util.arrays import Number
from jaxdiff.util.pytree import pytree, static


@pytree
class LatentDecoder(Operator):
    """The map z → (decode(z/scaling) + 1)/2 from latents [..., h, w, C] to images in about [0, 1].

    It is not linear: the samplers that take it are DDPM, DDIM, DPS and ΠGDM with `variance="course"`.

    Args:
        network: a `VQModel`.
        scaling: what latents are multiplied by in the prior, its `scaling_factor`.
        remat: rematerialisation, as of `Denoiser`.

    Source: Rombach et al. 2022 (arXiv 2112.10752), section 3.1; diffusers' LDMPipeline.
    """

    network: VQModel
    scaling: Number = 1.0
    remat: bool = static(default=False)

    def __call__(self, z) -> jax.Array:
        z = jnp.asarray(z)
        batch = z.reshape(-1, *z.shape[-3:]) * (1 / jnp.asarray(self.scaling, z.dtype))
        images = self.network.decode(batch, remat=self.remat).astype(z.dtype)
        return (0.5 * images + 0.5).reshape(*z.shape[:-3], *images.shape[1:])

    def pinv(self, image) -> jax.Array:
        """The latent of an image [..., H, W, 3] in [0, 1], by the encoder."""
        image = jnp.asarray(image)
        z = self.network.encode(2 * image.reshape(-1, *image.shape[-3:]) - 1)
        z = z.astype(image.dtype) * jnp.asarray(self.scaling, image.dtype)
        return z.reshape(*image.shape[:-3], *z.shape[1:])

    def input_shape(self, shape):
        c = self.network.config
        *lead, height, width, _ = shape
        return (*lead, height // c.downsampling, width // c.downsampling, c.embed_dim)

    @property
    def linear(self) -> NoReturn:
        """There is none: raises TypeError."""
        raise TypeError(
            "prior: of latents, whose decoder is not linear, which this method needs: DPS "
            "('dps') and ΠGDM's course variance ('pigdm') do work"
        )
