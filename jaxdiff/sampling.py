"""The whole trajectory: one scan over steps of a step mapped over samples."""

import operator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from tqdm.auto import tqdm

from jaxdiff.platform import jit, over_samples
from jaxdiff.pytree import pytree, replace_leaf
from jaxdiff.schedule import Steps
from jaxdiff.units import to_image


@pytree
class _Samples:
    """What is particular to each of m samples: its image and its number, y and given noise."""

    image: Any  # [m]
    number: Any  # [m]
    y: Any = None  # [m, *measurement]
    noise: Any = None  # [m, T + 1, H, W, C]


def sample(
    sampler,
    steps: Steps,
    *,
    key=None,
    n: int = 1,
    noise=None,
    keep=None,
    progress: bool = False,
    batch_size: int | None = None,
    sharding: NamedSharding | None = None,
):
    """Run a sampler over all steps and return images.

    One compiled `lax.scan` whose arguments are the sampler's leaves: another image, kernel, noise
    level, scale or set of weights of the same shapes does not recompile. Sample i draws its noise
    from `fold_in` of its own number, so it does not depend on n, `batch_size` or the devices.

    Args:
        sampler: such as `jd.DDPM(denoiser)` or `jd.PiGDM(denoiser, operator, y, sigma)`.
        steps: `schedule.steps(T)`.
        key: a `jax.random.key`.
        n: how many samples, of each measurement where y is a batch of B.
        noise: replaces the draws (and `key`): [T + 1, n, H, W, C], or [T + 1, B, n, H, W, C] for
            a batch; noise[0] is x_T, noise[i + 1] the draw of step i.
        keep: a function `(x, info)` of the state after a step and the step's info (`t`, `x0_hat`,
            and `residual` where there is a measurement), for one sample, in the network's
            [-1, 1]. What it returns is stacked over the steps: only then memory grows with T.
        progress: show a bar. The scan then runs in about 20 pieces of one compiled program, so
            the bar needs no callbacks: the program can be cached, and it works on many devices.
        batch_size: the most samples to run at once; all by default.
        sharding: spreads the samples over the devices of its mesh along its first axis.

    Returns:
        Images in [0, 1], [n, H, W, C], or [B, n, H, W, C] for a batch of measurements. With
        `keep`, a pair of them and the kept tree with leaves [T, n, ...] or [T, B, n, ...].

    Raises:
        ValueError: if neither key nor noise is given, for a shape that does not fit, n < 1.

    Example:
        >>> import jax, jaxdiff as jd
        >>> unet, schedule = jd.load("faces64")
        >>> sampler = jd.DDPM(jd.Denoiser(unet, schedule))
        >>> images, x0 = sample(sampler, schedule.steps(3), key=jax.random.key(0), n=2,
        ...                     keep=lambda x, info: info["x0_hat"])
        >>> images.shape, x0.shape
        ((2, 64, 64, 3), (3, 2, 64, 64, 3))
    """
    dtype = jnp.dtype(getattr(sampler.denoiser, "dtype", jax.dtypes.canonicalize_dtype(float)))
    y, lead = _measurements(sampler)
    total_steps = len(steps)
    if noise is not None:
        noise = jnp.asarray(noise, dtype)
        n = noise.shape[len(lead) + 1] if noise.ndim > len(lead) + 1 else n
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise ValueError(f"n: expected a positive integer, got {n!r}")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size: expected a positive integer, got {batch_size}")
    lead = (*lead, int(n))
    shape = _image_shape(sampler, y, noise)
    if noise is not None and noise.shape != (total_steps + 1, *lead, *shape):
        raise ValueError(
            f"noise: expected [T + 1, ...] = {[total_steps + 1, *lead, *shape]}, "
            f"got {list(noise.shape)}"
        )
    if noise is None and key is None:
        raise ValueError("key: pass jax.random.key(seed), or the noise itself")

    total = int(np.prod(lead))
    image, number = np.divmod(np.arange(total), n)
    if noise is not None:
        noise = jnp.moveaxis(noise.reshape(total_steps + 1, total, *shape), 0, 1)
    if y is not None:
        # The compiled program gets each sample's own y and never the whole batch.
        sampler = replace_leaf(sampler, y=None)
        y = y if len(lead) == 2 else y[None]
    devices = 1 if sharding is None else sharding.mesh.size
    size = min(batch_size or total, total)
    size = -(-size // devices) * devices
    steps = steps.astype(dtype)

    chunks = []
    segment = _segment_length(total_steps) if progress else total_steps
    with tqdm(total=-(-total // size) * total_steps, unit="step", disable=not progress) as bar:
        for start in range(0, total, size):
            # The last chunk is filled up with repeats: a chunk of another size would recompile.
            chosen = np.minimum(np.arange(start, start + size), total - 1)
            chunk = _Samples(
                image[chosen],
                number[chosen],
                None if y is None else y[image[chosen]],
                None if noise is None else noise[chosen],
            )
            chunks.append(
                _trajectory(sampler, steps, key, chunk, segment, bar, shape, dtype, keep, sharding)
            )

    def unflatten(axis, *arrays):
        joined = arrays[0] if len(arrays) == 1 else jnp.concatenate(arrays, axis)
        joined = jax.lax.slice_in_dim(joined, 0, total, axis=axis)
        return joined.reshape(*joined.shape[:axis], *lead, *joined.shape[axis + 1 :])

    images = unflatten(0, *(x for x, _ in chunks))
    if keep is None:
        return images
    return images, jax.tree.map(partial(unflatten, 1), *(kept for _, kept in chunks))


def _trajectory(sampler, steps, key, samples, segment, bar, shape, dtype, keep, sharding):
    """All steps of one chunk of samples: one program, or pieces of one with a bar between."""
    total = len(steps)
    static = (shape, dtype, keep, sharding)
    if segment == total:
        x, kept = _whole(sampler, steps, key, samples, *static)
        if not bar.disable:
            jax.block_until_ready(x)
        bar.update(total)
        return x, kept
    x, pieces = _begin(key, samples, shape, dtype), []
    for start in range(0, total, segment):
        piece = jax.tree.map(operator.itemgetter(slice(start, start + segment)), steps)
        x, kept = _part(sampler, piece, np.int32(start), key, samples, x, keep, sharding)
        pieces.append(kept)
        jax.block_until_ready(x)
        bar.update(segment)
    return to_image(x), jax.tree.map(lambda *k: jnp.concatenate(k), *pieces)


@partial(jit, static=("shape", "dtype", "keep", "sharding"))
def _whole(sampler, steps, key, samples, shape, dtype, keep, sharding):
    def run(sampler, steps, key, samples):
        x = _initial(key, samples, shape, dtype)
        x, kept = _scan(sampler, steps, 0, key, samples, x, keep)
        return to_image(x), kept

    return _spread(run, sharding, "rrrs")(sampler, steps, key, samples)


@partial(jit, static=("keep", "sharding"))
def _part(sampler, steps, start, key, samples, x, keep, sharding):
    run = partial(_scan, keep=keep)
    return _spread(run, sharding, "rrrrss")(sampler, steps, start, key, samples, x)


def _scan(sampler, steps, start, key, samples, x, keep):
    """The loop. Nothing in it depends on how many samples there are."""

    def one_step(c, i, x, image, number, y, noise):
        z = _draw(key, image, number, i + 1, x.shape, x.dtype) if noise is None else noise[i + 1]
        restoring = sampler if y is None else replace_leaf(sampler, y=y)
        x, info = restoring.step(x, c, z)
        return x, None if keep is None else keep(x, info)

    def body(x, step):
        c, i = step
        step_i = partial(one_step, c, i)
        return over_samples(step_i)(x, samples.image, samples.number, samples.y, samples.noise)

    return jax.lax.scan(body, x, (steps, start + jnp.arange(len(steps))))


def _initial(key, samples, shape, dtype):
    """x_T of every sample."""
    if samples.noise is not None:
        return samples.noise[:, 0]
    return jax.vmap(lambda image, number: _draw(key, image, number, 0, shape, dtype))(
        samples.image, samples.number
    )


_begin = jit(_initial, static=("shape", "dtype"))


def _draw(key, image, number, i, shape, dtype):
    """Draw i of one sample: its key depends on its own numbers and nothing else."""
    for index in (image, number, i):
        key = jax.random.fold_in(key, index)
    return jax.random.normal(key, shape, dtype)


def _spread(run, sharding, kinds):
    """Run on every device with its own samples ("s") and the rest replicated ("r").

    shard_map and not the partitioner: each device runs the one-device program on its share, so
    there is no collective, and nothing for it to decide.
    """
    if sharding is None:
        return run
    axis = sharding.spec[0]
    specs = tuple({"r": P(), "s": P(axis)}[kind] for kind in kinds)
    return jax.shard_map(
        run, mesh=sharding.mesh, in_specs=specs, out_specs=(P(axis), P(None, axis)), check_vma=False
    )


def _segment_length(total: int) -> int:
    """The largest divisor of T that makes at least 20 pieces: all pieces are one program."""
    return max(d for d in range(1, max(total // 20, 1) + 1) if total % d == 0)


def _measurements(sampler):
    """(y of each image flattened over samples later or None, leading batch shape)."""
    y = getattr(sampler, "y", None)
    if y is None:
        return None, ()
    out = jax.eval_shape(
        sampler.operator, jax.ShapeDtypeStruct((*sampler.operator.shape, y.shape[-1]), jnp.float32)
    ).shape
    return y, (() if y.ndim == len(out) else y.shape[:1])


def _image_shape(sampler, y, noise):
    """[H, W, C] of one sample."""
    shape = getattr(sampler.denoiser, "shape", None)
    if y is not None:
        channels = shape[-1] if shape else y.shape[-1]
        return (*sampler.operator.shape, channels)
    if shape is not None:
        return shape
    if noise is not None:
        return noise.shape[-3:]
    raise ValueError("the prior's config names no sample_size: pass noise= of the size you want")
