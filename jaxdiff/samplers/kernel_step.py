"""The kernel of a blur by least squares, from images that are only known in distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import optax


def moments(x, y, covariance=None) -> tuple[jax.Array, jax.Array]:
    """What E‖k∗x − y‖² is made of, each [H, W]: E x⋆x and E x⋆y, correlations about the channels' means.

    But for a constant it is Σ_ij k_i k_j (x⋆x)(i − j) − 2 Σ_i k_i (x⋆y)(i), k∗x circular.

    Args:
        x: the mean of the image [H, W, C].
        y: its blur [H, W, C].
        covariance: of the image, [H, W//2 + 1, C, C], a matrix over colours at every frequency of the
            orthonormal FFT; None for an image that is known.
    """
    size = x.shape[:2]
    fx, fy = (jnp.fft.rfft2(v - v.mean((0, 1)), axes=(0, 1)) for v in (x, y))
    power, cross = jnp.sum(jnp.abs(fx) ** 2, -1), jnp.sum(jnp.conj(fx) * fy, -1)
    if covariance is not None:
        spread = jnp.trace(covariance, axis1=-2, axis2=-1) * (size[0] * size[1])
        power += spread.at[0, 0].set(0)
    return jnp.fft.irfft2(power, s=size), jnp.fft.irfft2(cross, s=size)


def normal_equations(power, cross, size: int) -> tuple[jax.Array, jax.Array]:
    """(A, b) of the minimum A k = b over kernels k [size²], row by row, of the moments."""
    steps = np.arange(size) - size // 2
    place = np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)
    apart = place[:, None] - place
    return power[apart[..., 0], apart[..., 1]], cross[place[:, 0], place[:, 1]]


def simplex_step(power, cross, kernel, ridge, iterations: int = 60) -> jax.Array:
    """The kernel k ≥ 0, Σk = 1, least of E‖k∗x − y‖² + ridge·(x⋆x)(0)·‖k‖², from `kernel` [size, size] on.

    Accelerated projected gradients: Beck & Teboulle 2009 (SIAM J. Imaging Sci. 2(1)).
    """
    a, b = normal_equations(power, cross, len(kernel))
    a += ridge * power[0, 0] * jnp.eye(len(a), dtype=a.dtype)

    def power_iteration(_, v):
        v = a @ v
        return v / jnp.linalg.norm(v)

    v = jax.lax.fori_loop(0, 12, power_iteration, jnp.ones_like(b))
    step = 1 / (1.05 * jnp.linalg.norm(a @ v))

    def iterate(_, state):
        k, ahead, t = state
        after = optax.projections.projection_simplex(ahead - step * (a @ ahead - b))
        t_after = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
        return after, after + (t - 1) / t_after * (after - k), t_after

    k = kernel.ravel()
    k, _, _ = jax.lax.fori_loop(0, iterations, iterate, (k, k, jnp.ones((), k.dtype)))
    return k.reshape(kernel.shape)


def centred(image, kernel) -> tuple[jax.Array, jax.Array]:
    """Both moved against each other, so that the kernel's centre of mass is its middle.

    k∗x stays what it is: an image and its kernel are known but for such a shift.
    """
    size = len(kernel)
    steps = jnp.arange(size) - size // 2
    shift = jnp.stack([jnp.sum(kernel.sum(1) * steps), jnp.sum(kernel.sum(0) * steps)])
    height, width = image.shape[:2]

    def moved(v, shift, shape):
        rows, columns = jnp.fft.fftfreq(shape[0])[:, None], jnp.fft.rfftfreq(shape[1])
        phase = jnp.exp(-2j * jnp.pi * (rows * shift[0] + columns * shift[1]))
        phase = phase.reshape(*phase.shape, *[1] * (v.ndim - 2))
        return jnp.fft.irfft2(phase * jnp.fft.rfft2(v, axes=(0, 1)), s=shape, axes=(0, 1))

    wide = jnp.pad(kernel, size)
    kernel = jnp.maximum(moved(wide, -shift, wide.shape)[size:-size, size:-size], 0)
    return moved(image, shift, (height, width)).astype(image.dtype), kernel / kernel.sum()
