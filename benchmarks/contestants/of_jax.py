"""jaxdiff itself."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxdiff as jd
from benchmarks.contestants import SIGMA, Workload, images
from jaxdiff.cli.terminal import cache_compiled_programs
from jaxdiff.samplers.presets import preset
from jaxdiff.train import loop as train
from jaxdiff.util.platform import jit


def contestant(workload: Workload, folder: str) -> Callable[[], Any]:
    """A forward pass, an update, or all steps of a sampler, compiled."""
    cache_compiled_programs()
    # Training keeps float32 weights, and chooses itself what it computes in.
    kept = "float32" if workload.method == "train" else workload.dtype
    unet, schedule = _load(folder, kept)
    denoiser, x = jd.Denoiser(unet, schedule, remat=workload.remat), images(workload)
    if workload.method == "forward":
        forward: Any = jit(jd.UNet2D.__call__)
        return lambda: jax.block_until_ready(forward(unet, x, 500))
    if workload.method == "train":
        graph, params = nnx.split(unet)
        optimizer = train.adamw(train.Settings())
        params, mean = jax.tree.map(jnp.copy, (params, params))
        state = train.State(jnp.zeros((), jnp.int32), params, mean, optimizer.init(params))
        alphas_cumprod = jnp.asarray(schedule.alphas_cumprod, jnp.float32)
        pixels = np.uint8(np.clip(x * 60 + 128, 0, 255))
        at_once = train.images_at_once(workload.batch, workload.size)

        def update():
            nonlocal state
            state, loss = train._update(
                graph, optimizer, 0.999, 0, 1.0, alphas_cumprod, state, pixels, False, at_once
            )
            return jax.block_until_ready(loss)

        return update
    sampler: Any = jd.DDPM(denoiser)
    if workload.method != "ddpm":
        blur = jd.operators.Blur(np.ones((9, 9)) / 81, (workload.size, workload.size))
        y, table = np.clip(x[0] / 2 + 0.5, 0, 1), table_for_any()
        sampler = preset(workload.method).sampler(denoiser, blur, y, SIGMA, covariance=table)
    steps = schedule.steps(workload.steps)
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((workload.steps + 1, *x.shape)).astype("f")
    key = jax.random.key(0)
    return lambda: jax.block_until_ready(jd.sample(sampler, steps, noise=noise, key=key))


def table_for_any() -> Any:
    """The table of faces64, for networks of which no one measured their own: any takes as long."""
    return dataclasses.replace(jd.SpectralCovariance.load("faces64"), weights=None)


@functools.cache  # of a process with several workloads
def _load(folder: str, dtype: str) -> tuple[Any, Any]:
    return jd.load(folder, dtype=dtype)
