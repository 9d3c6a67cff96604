"""The exact denoiser and the camera of an example, as matrices."""

import jax
import jax.numpy as jnp
import numpy as np


def matrices(problem, at):
    """The exact denoiser at a level, the blur of states, and y less A(1/2), as matrices and a vector."""
    size = problem.y.size
    unit = jnp.eye(size).reshape(size, *problem.y.shape)
    denoise = np.asarray(jax.vmap(lambda e: problem.prior(e, at))(unit)).reshape(size, size).T
    blur = np.asarray(jax.vmap(problem.blur)(unit)).reshape(size, size).T / 2
    return denoise, blur, problem.y.ravel() - 2 * blur @ np.full(size, 0.5)
