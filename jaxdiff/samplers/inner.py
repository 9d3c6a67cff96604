"""What some methods do within a step: a ladder down to the data, Markov chains, resampling."""

import jax
import jax.numpy as jnp

from jaxdiff.samplers.base import move
from jaxdiff.schedules import Steps


def descend(denoiser, x, ladder: Steps | None, key=None) -> jax.Array:
    """From x_t to the data along `Steps.inner`: by the probability flow, or as DDPM with a key."""

    def one(x, step):
        c, key = step
        z, fresh = (0, 0) if key is None else (jax.random.normal(key, x.shape, x.dtype), None)
        return move(x, c, denoiser.predict(x, c.now).x0_hat, z, fresh), None

    assert ladder is not None, "of a sampler whose `inner` is not 0"
    keys = None if key is None else jax.random.split(key, len(ladder))
    return jax.lax.scan(one, x, (ladder, keys))[0]


def langevin(score, x, step_size, count: int, key) -> jax.Array:
    """`count` unadjusted Langevin moves x + η·score(x) + √(2η)·z."""

    def one(i, x):
        z = jax.random.normal(jax.random.fold_in(key, i), x.shape, x.dtype)
        return x + step_size * score(x) + jnp.sqrt(2 * step_size) * z

    return jax.lax.fori_loop(0, count, one, x)


def hmc(score, x, step_size, count: int, key, momentum: float = 0.9) -> jax.Array:
    """`count` moves of damped Hamiltonian dynamics.

    v ← mv + √η·score(x) + √(2(1 − m))·z and x ← x + √η·v, from v ~ N(0, I).
    """

    def one(i, state):
        x, v = state
        z = jax.random.normal(jax.random.fold_in(key, i), x.shape, x.dtype)
        v = momentum * v + root * score(x) + (2 * (1 - momentum)) ** 0.5 * z
        return x + root * v, v

    root = jnp.sqrt(step_size)
    v = jax.random.normal(jax.random.fold_in(key, count), x.shape, x.dtype)
    return jax.lax.fori_loop(0, count, one, (x, v))[0]


CHAINS = {"langevin": langevin, "hmc": hmc}


def systematic(key, log_weights) -> jax.Array:
    """Indices, each as often as its weight says up to one, in random order."""
    first, second = jax.random.split(key)
    count = len(log_weights)
    places = (jnp.arange(count) + jax.random.uniform(first, dtype=log_weights.dtype)) / count
    edges = jnp.cumsum(jax.nn.softmax(log_weights))
    found = jnp.minimum(jnp.searchsorted(edges, places), count - 1)
    return jax.random.permutation(second, found)
