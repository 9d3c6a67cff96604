"""The whole trajectory: one scan over steps, mapped over samples."""

import dataclasses
import math
import operator
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from tqdm.auto import tqdm

from jaxdiff.samplers.base import Draws, Sampler
from jaxdiff.schedules import Steps
from jaxdiff.util.arrays import Array
from jaxdiff.util.platform import choices, jit, map_samples
from jaxdiff.util.pytree import describe, pytree, replace_leaf


@pytree
class _Samples:
    """What is particular to each of m samples: its key or given noise, its measurement."""

    key: Any = None  # [m]
    per_sample: Any = dataclasses.field(default_factory=dict)  # sampler's fields: y [m, ...], ...
    noise: Any = None  # [m, T + 1, H, W, C]


def sample(
    sampler: Sampler,
    steps: Steps,
    *,
    key: jax.Array | None = None,
    n: int = 1,
    noise: Array | None = None,
    keep: Callable[[jax.Array, dict[str, Any]], Any] | None = None,
    progress: bool = False,
    batch_size: int | None = None,
    sharding: NamedSharding | None = None,
    precision: str | None = None,
):
    """Run a sampler over all steps and return images.

    One compiled `lax.scan` whose arguments are the sampler's leaves: another image, kernel, noise
    level, scale or set of weights of the same shapes does not recompile. Sample i draws its noise
    from `fold_in` of its own number, so it does not depend on n, `batch_size` or the devices; but
    for the last digits of float32, where XLA compiles one sample at a time otherwise than several.
    Conjugate gradients, which stop at a tolerance, may make more of these digits.

    Args:
        sampler: such as `jd.DDPM(denoiser)` or `jd.PiGDM(denoiser, operator, y, sigma)`.
        steps: `schedule.steps(T)`.
        key: a `jax.random.key`; [B] of them give each measurement of a batch its own.
        n: how many samples, of each measurement where y is a batch of B.
        noise: replaces the draws: [T + 1, n, H, W, C], or [T + 1, B, n, H, W, C] for a batch;
            noise[0] is x_T / σ_T, noise[i + 1] the z of step i. A sampler that draws more than z
            (`SpectralPosterior`, where the operator is no `Blur`) takes the rest from `key`.
        keep: a function `(x, info)` of the state after a step and the step's info (`t`, `x0_hat`,
            and `residual` where there is a measurement), for one sample, in the prior's units.
            What it returns is stacked over the steps: only then memory grows with T.
        progress: show a bar. The scan then runs in about 20 pieces of one compiled program, so
            the bar needs no callbacks: the program can be cached, and it works on many devices.
        batch_size: the most samples to run at once; all by default.
        sharding: spreads the samples over the devices of its mesh along its first axis.
        precision: of products in float32 on GPU and TPU, by `jax.default_matmul_precision`:
            "default" is TF32 on NVIDIA's tensor cores and one pass of bfloat16 on TPU, "high"
            three passes, "highest" float32. None leaves what JAX is set to. CPUs always
            compute in float32.

    Returns:
        Images in [0, 1], [n, H, W, C], or [B, n, H, W, C] for a batch of measurements. With
        `keep`, a pair of them and the kept tree with leaves [T, n, ...] or [T, B, n, ...].

    Raises:
        TypeError: for a sampler, steps, a key or a sharding of another type.
        ValueError: if neither key nor noise is given, for a shape that does not fit, n < 1, an
            unknown precision, a sharding that leaves devices without samples.

    Example:
        >>> import jax, jaxdiff as jd
        >>> unet, schedule = jd.load("faces64")
        >>> sampler = jd.DDPM(jd.Denoiser(unet, schedule))
        >>> images, x0 = sample(sampler, schedule.steps(3), key=jax.random.key(0), n=2,
        ...                     keep=lambda x, info: info["x0_hat"])
        >>> images.shape, x0.shape
        ((2, 64, 64, 3), (3, 2, 64, 64, 3))
    """
    _check(sampler, steps, key, n, batch_size, sharding, precision)
    dtype = jnp.dtype(sampler.denoiser.dtype)
    noise = None if noise is None else jnp.asarray(noise, dtype)
    shape = sampler.shape or (None if noise is None else noise.shape[-3:])
    if shape is None:
        raise ValueError(
            "the prior's config names no sample_size: pass noise= of the size you want"
        )
    sampler, per_sample, lead = sampler.split()
    total_steps = len(steps)
    if noise is not None:
        n = noise.shape[len(lead) + 1] if noise.ndim > len(lead) + 1 else n
        if n == 0:
            raise ValueError(f"noise: of no sample, {list(noise.shape)}")
    lead = (*lead, int(n))
    if noise is not None and noise.shape != (total_steps + 1, *lead, *shape):
        raise ValueError(
            f"noise: expected [T + 1, ...] = {[total_steps + 1, *lead, *shape]}, "
            f"got {list(noise.shape)}"
        )
    total = int(np.prod(lead))
    image, number = np.divmod(np.arange(total), n)
    keys = None
    if noise is not None:
        noise = jnp.moveaxis(noise.reshape(total_steps + 1, total, *shape), 0, 1)
    if key is None and noise is None:
        raise ValueError("key: pass jax.random.key(seed), or the noise itself")
    if key is not None:
        keys = _keys(_typed_key(key, lead[:-1]), image, number)
    devices = 1 if sharding is None else sharding.mesh.size
    size = min(batch_size or total, total)
    size = -(-size // devices) * devices
    steps, scale = steps.astype(dtype), jnp.asarray(steps.start, dtype)
    # JAX takes a str and none of its subclasses, such as the command line's enumeration.
    precise = nullcontext() if precision is None else jax.default_matmul_precision(str(precision))

    chunks = []
    segment = _segment_length(total_steps) if progress else total_steps
    bar = tqdm(total=-(-total // size) * total_steps, unit="step", disable=not progress)
    with precise, bar:
        for start in range(0, total, size):
            # The last chunk is filled up with repeats: a chunk of another size would recompile.
            chosen = np.minimum(np.arange(start, start + size), total - 1)
            chunk = _Samples(
                None if keys is None else keys[chosen],
                jax.tree.map(lambda a, rows=image[chosen]: a[rows], per_sample),
                None if noise is None else noise[chosen],
            )
            chunks.append(
                _trajectory(
                    sampler, steps, scale, chunk, segment, bar, shape, dtype, keep, sharding
                )
            )

    def unflatten(axis, *arrays):
        joined = arrays[0] if len(arrays) == 1 else jnp.concatenate(arrays, axis)
        joined = jax.lax.slice_in_dim(joined, 0, total, axis=axis)
        return joined.reshape(*joined.shape[:axis], *lead, *joined.shape[axis + 1 :])

    images = unflatten(0, *(x for x, _ in chunks))
    if keep is None:
        return images
    return images, jax.tree.map(partial(unflatten, 1), *(kept for _, kept in chunks))


def _trajectory(sampler, steps, scale, samples, segment, bar, shape, dtype, keep, sharding):
    """All steps of one chunk of samples: one program, or pieces of one with a bar between."""
    total = len(steps)
    static = (shape, dtype, keep, sharding)
    if segment == total:
        x, kept = _run_trajectory(sampler, steps, scale, samples, *static)
        if not bar.disable:
            jax.block_until_ready(x)
        bar.update(total)
        return x, kept
    x, pieces = _begin(sampler, scale, samples, shape, dtype), []
    for start in range(0, total, segment):
        piece = jax.tree.map(operator.itemgetter(slice(start, start + segment)), steps)
        x, kept = _run_piece(sampler, piece, np.int32(start), samples, x, *static)
        pieces.append(kept)
        jax.block_until_ready(x)
        bar.update(segment)
    return _finish(sampler, x), jax.tree.map(lambda *k: jnp.concatenate(k), *pieces)


@partial(jit, static=("shape", "dtype", "keep", "sharding"))
def _run_trajectory(sampler, steps, scale, samples, shape, dtype, keep, sharding):
    def run(sampler, steps, scale, samples):
        x = _initial(sampler, scale, samples, shape, dtype)
        x, kept = _scan(sampler, steps, 0, samples, x, shape, dtype, keep)
        return _images(sampler, x), kept

    return _on_devices(run, sharding, 3, 1)(sampler, steps, scale, samples)


@partial(jit, static=("shape", "dtype", "keep", "sharding"))
def _run_piece(sampler, steps, start, samples, x, shape, dtype, keep, sharding):
    run = partial(_scan, shape=shape, dtype=dtype, keep=keep)
    return _on_devices(run, sharding, 3, 2)(sampler, steps, start, samples, x)


def _scan(sampler, steps, start, samples, x, shape, dtype, keep):
    """The loop over steps, of each sample or of a few at once: the same program however many there are."""
    like = jax.ShapeDtypeStruct(shape, dtype)
    free = getattr(sampler.denoiser, "independent", False)
    pixels = math.prod(shape[:-1]) if free else None
    numbers = start + jnp.arange(len(steps))

    def trajectory(x, sample):
        own = replace_leaf(sampler, **sample.per_sample)

        def one_step(x, step):
            c, i = step
            key = None if sample.key is None else jax.random.fold_in(sample.key, -1 - i)
            x, info = own.step(x, c, Draws(_draw(sample, i + 1, like), key))
            return x, None if keep is None else keep(x, info)

        return jax.lax.scan(one_step, x, (steps, numbers), unroll=choices().unroll)

    x, kept = map_samples(trajectory, pixels)(x, samples)
    return x, jax.tree.map(lambda k: jnp.moveaxis(k, 0, 1), kept)


def _initial(sampler, scale, samples, shape, dtype):
    """The first state of every sample, of noise alone."""
    like = jax.ShapeDtypeStruct(shape, dtype)

    def one(sample):
        return replace_leaf(sampler, **sample.per_sample).begin(scale * _draw(sample, 0, like))

    return map_samples(one)(samples)


_begin = jit(_initial, static=("shape", "dtype"))


def _images(sampler, x):
    return sampler.denoiser.image(jax.vmap(sampler.result)(x))


_finish = jit(_images)


def _draw(sample: _Samples, i, like):
    """Draw i of one sample: its key depends on its own numbers and nothing else."""
    if sample.noise is not None:
        return sample.noise[i]
    return jax.random.normal(jax.random.fold_in(sample.key, i), like.shape, like.dtype)


def _typed_key(key, lead):
    """A threefry key; one, or one for each measurement.

    Other generators ("rbg") draw under vmap what depends on the whole batch.
    """
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)  # of jax.random.PRNGKey
    if key.shape not in ((), lead):
        raise ValueError(f"key: expected one, or one for each measurement, got {list(key.shape)}")
    words = jax.random.key_data(key)
    key = jax.random.wrap_key_data(words[..., :2], impl="threefry2x32")
    fold = jax.random.fold_in if key.ndim == 0 else jax.vmap(jax.random.fold_in)
    for i in range(2, words.shape[-1]):
        key = fold(key, words[..., i])
    return key


@jit
def _keys(key, image, number):
    """The key of sample `number` of measurement `image`, from one key or from one for each."""
    one = jax.vmap(jax.random.fold_in, (None, 0))(key, image) if key.ndim == 0 else key[image]
    return jax.vmap(jax.random.fold_in)(one, number)


def _on_devices(run, sharding, replicated: int, split: int):
    """Run on every device with its own samples, the first arguments the same on all.

    shard_map and not the partitioner: each device runs the one-device program on its share, so
    there is no collective, and nothing for it to decide.
    """
    if sharding is None:
        return run
    samples = P(sharding.spec[0])
    return jax.shard_map(
        run,
        mesh=sharding.mesh,
        in_specs=(P(),) * replicated + (samples,) * split,
        out_specs=(samples, P(None, *samples)),
        check_vma=False,
    )


def _segment_length(total: int) -> int:
    """The largest divisor of T that makes at least 20 pieces: all pieces are one program."""
    return max(d for d in range(1, max(total // 20, 1) + 1) if total % d == 0)


def _check(sampler, steps, key, n, batch_size, sharding, precision):
    """Everything that can be said before anything is compiled."""
    if not isinstance(sampler, Sampler):
        raise TypeError(f"sampler: expected one of jd.samplers, got {describe(sampler)}")
    if not isinstance(steps, Steps):
        raise TypeError(
            f"steps: expected schedule.steps(T), got {describe(steps)}"
            + (f": schedule.steps({steps})" if isinstance(steps, int) else "")
        )
    if sampler.inner and (steps.inner is None or np.shape(steps.inner.t)[1:] != (sampler.inner,)):
        raise ValueError(
            f"steps: {type(sampler).__name__} wants {sampler.inner} steps from each level down to the "
            f"data: sampler.steps({len(steps)}), or schedule.steps({len(steps)}, inner={sampler.inner})"
        )
    if key is not None and not hasattr(key, "dtype"):
        raise TypeError(f"key: expected jax.random.key(seed), got {key!r}")
    for name, value in (("n", n), ("batch_size", 1 if batch_size is None else batch_size)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name}: expected a positive integer, got {value!r}")
    if precision not in (None, "default", "high", "highest"):
        raise ValueError(f"precision: expected 'default', 'high' or 'highest', got {precision!r}")
    if sharding is None:
        return
    if not isinstance(sharding, NamedSharding):
        raise TypeError(f"sharding: expected a NamedSharding, got {type(sharding).__name__}")
    named = sharding.spec[0] if len(sharding.spec) == 1 else None
    axes = named if isinstance(named, tuple) else (named,)
    if math.prod(sharding.mesh.shape.get(axis, 0) for axis in axes) != sharding.mesh.size:
        raise ValueError(
            f"sharding: expected all {sharding.mesh.size} devices of the mesh on the samples, as "
            f"PartitionSpec({sharding.mesh.axis_names[0]!r}), got {sharding.spec}"
        )
