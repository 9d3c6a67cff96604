"""One contestant of `python -m benchmarks`, in a process of its own: `python -m benchmarks.contestants`.

Reads lines from stdin. At each it does its work once and answers with the seconds; at the end of
input, with its peak resident memory. A process of its own, so that no one's idle threads spin on
another's cores, and memory is each one's own.
"""

import argparse
import contextlib
import dataclasses
import json
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

SIGMA = 10 / 255
METHODS = ("forward", "ddpm", "dps", "pigdm", "train")
NAMES = ("jaxdiff", "torch", "torch channels_last", "torch.compile")


@dataclasses.dataclass(frozen=True)
class Workload:
    """A method on a checkpoint's network: so many steps of so many images at once."""

    checkpoint: str
    size: int
    method: str
    batch: int
    steps: int

    def __str__(self):
        steps = f", {self.steps} steps" if self.method not in ("forward", "train") else ""
        return f"{self.checkpoint} {self.size}², {self.method}, batch {self.batch}{steps}"


def images(workload: Workload) -> np.ndarray:
    shape = (workload.batch, workload.size, workload.size, 3)
    return np.random.default_rng(0).standard_normal(shape).astype("f")


def of_jax(workload: Workload, folder: str) -> Callable[[], Any]:
    import jax
    import jax.numpy as jnp
    from flax import nnx

    import jaxdiff as jd
    from jaxdiff import train
    from jaxdiff.platform import jit

    unet, schedule = jd.load(folder)
    denoiser, x = jd.Denoiser(unet, schedule), images(workload)
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

        def update():
            nonlocal state
            state, loss = train._update(
                graph, optimizer, 0.999, 0, alphas_cumprod, state, pixels, False
            )
            return jax.block_until_ready(loss)

        return update
    sampler: Any = jd.DDPM(denoiser)
    if workload.method != "ddpm":
        blur = jd.operators.Blur(np.ones((9, 9)) / 81, (workload.size, workload.size))
        y = np.clip(x[0] / 2 + 0.5, 0, 1)
        sampler = (
            jd.DPS(denoiser, blur, y)
            if workload.method == "dps"
            else jd.PiGDM(denoiser, blur, y, SIGMA)
        )
    steps = schedule.steps(workload.steps)
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((workload.steps + 1, *x.shape)).astype("f")
    return lambda: jax.block_until_ready(jd.sample(sampler, steps, noise=noise))


def of_torch(workload: Workload, folder: str, kind: str) -> Callable[[], Any]:
    import torch

    if torch.cuda.is_available():
        torch.set_default_device("cuda")

        def finished(run):
            run()
            torch.cuda.synchronize()

        return partial(finished, _of_torch(workload, folder, kind))
    return _of_torch(workload, folder, kind)


def _of_torch(workload: Workload, folder: str, kind: str) -> Callable[[], Any]:
    import torch
    from diffusers.models.unets.unet_2d import UNet2DModel
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    from tests.parity import course

    device = torch.get_default_device()
    unet: Any = UNet2DModel.from_pretrained(folder, low_cpu_mem_usage=False)
    unet = unet.to(device)
    scheduler = DDPMScheduler()
    x = torch.tensor(images(workload).transpose(0, 3, 1, 2), device=device)
    if kind != "torch":
        unet, x = (a.to(memory_format=torch.channels_last) for a in (unet, x))
    if workload.method == "train":
        adam = torch.optim.AdamW(unet.parameters(), 3e-4)
        average = [p.detach().clone() for p in unet.parameters()]
        run = torch.compile(unet) if kind == "torch.compile" else unet

        def update():
            t = torch.randint(0, 1000, (len(x),))
            loss = ((run(x, t).sample - torch.randn_like(x)) ** 2).mean()
            adam.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
            adam.step()
            with torch.no_grad():
                for mean, p in zip(average, unet.parameters()):
                    mean.lerp_(p, 1e-3)

        return update
    unet = unet.eval().requires_grad_(False)
    if kind == "torch.compile":
        unet = torch.compile(unet)
    if workload.method == "forward":

        def forward():
            with torch.no_grad():
                return unet(x, 500).sample

        return forward
    blur = course.TorchBlur(np.ones((9, 9)) / 81, x.shape[-2:], x.dtype)
    noise = torch.randn(workload.steps + 1, *x.shape)
    measured = {"blur": blur, "y": torch.clamp(x / 2 + 0.5, 0, 1), "sigma": SIGMA}
    method, count = workload.method, workload.steps
    return lambda: course.trajectory(method, unet, scheduler, count, noise, **measured)


def main() -> None:
    parser = argparse.ArgumentParser(description="One contestant; see python -m benchmarks.")
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("folder")
    parser.add_argument("workload", help="JSON")
    arguments = parser.parse_args()
    started = time.perf_counter()
    workload = Workload(**json.loads(arguments.workload))
    with contextlib.redirect_stdout(sys.stderr):  # stdout is for the answers
        if arguments.name == "jaxdiff":
            run = of_jax(workload, arguments.folder)
        else:
            run = of_torch(workload, arguments.folder, arguments.name)
        run()
    first = time.perf_counter() - started
    with contextlib.redirect_stdout(sys.stderr):
        run()
    print(first, flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        with contextlib.redirect_stdout(sys.stderr):
            run()
        print(time.perf_counter() - started, flush=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, flush=True)


if __name__ == "__main__":
    main()
