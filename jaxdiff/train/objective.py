"""What a network is trained on, and how two are compared: the mean squared error of ε̂."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxdiff as jd
from jaxdiff.util.platform import jit


def noise_loss(unet, alphas_cumprod, x0, t, eps) -> jax.Array:
    """‖ε̂(√ᾱ_t·x₀ + √(1−ᾱ_t)·ε, t) − ε‖² averaged over pixels: [n].

    x0, eps: [n, H, W, C], x0 in [-1, 1]; t: [n]. Source: Ho et al. 2020 (arXiv 2006.11239), eq. 14.
    """
    alpha = alphas_cumprod[t][:, None, None, None]
    x_t = jnp.sqrt(alpha) * x0 + jnp.sqrt(1 - alpha) * eps
    error = unet(x_t.astype(unet.dtype), t).astype(jnp.float32) - eps
    return jnp.mean(error**2, (1, 2, 3))


def validation_loss(
    denoiser: jd.Denoiser, images, *, levels: int = 1, batch_size: int = 50
) -> float:
    """Mean squared error of ε̂ over images [N, H, W, C] uint8, at fixed timesteps and noise.

    Image i is noised to `levels` timesteps. All of them together are spread evenly over the
    schedule, so that two checkpoints are compared at the same points. The noise is that of
    `jax.random.key(0)`, image and level.

    Example:
        >>> denoiser = jd.Denoiser(*jd.load("faces64"))
        >>> images = np.stack(list(jd.data.faces().values())) * 255
        >>> 0 < validation_loss(denoiser, images.astype(np.uint8)) < 0.1
        True
    """
    schedule: Any = denoiser.schedule
    n, T = len(images), schedule.num_train_timesteps
    stratified = (np.random.default_rng(0).permutation(n * levels) + 0.5) / (n * levels)
    timesteps = np.floor(stratified * T).astype(np.int32)
    which = np.repeat(np.arange(n), levels)
    losses = []
    for start in range(0, n * levels, batch_size):
        some = slice(start, start + batch_size)
        losses.append(
            _losses(denoiser, images[which[some]], timesteps[some], np.arange(n * levels)[some])
        )
    return float(np.concatenate(losses).mean())


@jit
def _losses(denoiser, pixels, t, numbers):
    x0 = denoiser.state(pixels / jnp.float32(255))

    def draw(number):
        key = jax.random.fold_in(jax.random.key(0), number)
        return jax.random.normal(key, x0.shape[1:])

    alphas = jnp.asarray(denoiser.schedule.alphas_cumprod, jnp.float32)
    return noise_loss(denoiser.unet, alphas, x0, t, jax.vmap(draw)(numbers))
