"""Fienup's hybrid input–output algorithm: what phase retrieval without a prior comes to."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np


def hybrid_input_output(y, shape: tuple[int, ...], iterations: int = 1000, seed: int = 0):
    """An image [H, W, C] in [0, 1] of y, what `PhaseRetrieval` measured of it between zeros.

    x ← x′ where x′, which is x with the measured amplitudes, is in [0, 1] and not between the zeros;
    x − 0.9·x′ elsewhere. Source: Fienup 1982 (Applied Optics 21(15)), eq. 44.
    """
    found = _iterated(jnp.asarray(y, jnp.float32), jax.random.key(seed), tuple(shape), iterations)
    return np.clip(np.asarray(found), 0, 1)


@partial(jax.jit, static_argnames=("shape", "iterations"))
def _iterated(y, key, shape: tuple[int, ...], iterations: int):
    amplitudes = jnp.fft.ifftshift(jnp.maximum(y, 0), axes=(0, 1))
    margins = [(a - b) // 2 for a, b in zip(amplitudes.shape[:2], shape[:2])]
    inside = tuple(slice(m, m + n) for m, n in zip(margins, shape[:2]))
    support = np.zeros((*amplitudes.shape[:2], 1), bool)
    support[inside] = True

    def move(x, _):
        spectrum = jnp.fft.fft2(x, axes=(0, 1), norm="ortho")
        known = amplitudes * jnp.exp(1j * jnp.angle(spectrum))
        new = jnp.fft.ifft2(known, axes=(0, 1), norm="ortho").real
        return jnp.where(support & (new >= 0) & (new <= 1), new, x - 0.9 * new), None

    start = jax.random.uniform(key, amplitudes.shape) * support
    x, _ = jax.lax.scan(move, start, None, iterations)
    return x[inside]
