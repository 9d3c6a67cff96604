"""Between the network's [-1, 1] and the image's [0, 1]."""

import jax.numpy as jnp


def to_image(x):
    """[-1, 1] → [0, 1], clipped: the course's clean_output, also inside a gradient."""
    return (jnp.clip(x, -1, 1) + 1) / 2


def to_model(x):
    """[0, 1] → [-1, 1]."""
    return 2 * x - 1
