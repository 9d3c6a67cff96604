"""diffusers' network in torch with the course's loop, and a product of matrices."""

import functools
import os
import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from benchmarks.contestants import COMPILED, SIGMA, Workload, images
from convert import course


def contestant(workload: Workload, folder: str, kind: str) -> Callable[[], Any]:
    """On the GPU where torch sees one; `kind` is the contestant's name."""
    if kind == "azula":
        from benchmarks.contestants import of_azula

        make = of_azula.contestant
    else:
        make = partial(_of_diffusers, kind=kind)
    if torch.cuda.is_available():
        torch.set_default_device("cuda")
        torch.set_float32_matmul_precision("high")  # TF32, which is JAX's default
        torch.backends.cudnn.benchmark = True  # XLA tries convolutions too

        def finished(run):
            run()
            torch.cuda.synchronize()

        return partial(finished, make(workload, folder))
    return make(workload, folder)


def _of_diffusers(workload: Workload, folder: str, kind: str) -> Callable[[], Any]:
    dtype = getattr(torch, workload.dtype)
    with torch.device("cpu"):  # where diffusers keeps its numbers: no kernels for them
        scheduler = DDPMScheduler()
    x = torch.tensor(images(workload).transpose(0, 3, 1, 2), device=torch.get_default_device())
    if kind != "torch":
        x = x.to(memory_format=torch.channels_last)
    if workload.method == "train":
        unet = _diffusers(folder, kind)
        adam = torch.optim.AdamW(unet.parameters(), 3e-4)
        average = [p.detach().clone() for p in unet.parameters()]

        def predict(x, t):
            return unet(x, t, return_dict=False)[0]

        run = _compiled(predict, kind) if kind in COMPILED else predict

        def update():
            t = torch.randint(0, 1000, (len(x),))
            with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
                loss = ((run(x, t) - torch.randn_like(x)) ** 2).mean()
            adam.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
            adam.step()
            with torch.no_grad():
                for mean, p in zip(average, unet.parameters()):
                    mean.lerp_(p, 1e-3)

        return update
    unet = _frozen(folder, kind, dtype)
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


def _diffusers(folder: str, kind: str) -> Any:
    model: Any = UNet2DModel.from_pretrained(folder, low_cpu_mem_usage=False)
    layout = torch.contiguous_format if kind == "torch" else torch.channels_last
    return model.to(torch.get_default_device()).to(memory_format=layout)


@functools.cache  # one program for several workloads
def _frozen(folder: str, kind: str, dtype) -> Callable:
    """A network for sampling, that computes in dtype: from states in float32 to noise in float32."""
    unet = _diffusers(folder, kind).eval().requires_grad_(False).to(dtype)

    def predict(x, t):
        return unet(x.to(dtype), t, return_dict=False)[0].float()

    run = _compiled(predict, kind) if kind in COMPILED else predict
    return lambda x, t: SimpleNamespace(sample=run(x, t))


def _compiled(predict: Callable, kind: str) -> Callable:
    """One program for all batch sizes, as long as torch can."""
    backend = os.environ.get("ACCELERATOR_BACKEND", "inductor")
    mode = COMPILED[kind] if backend == "inductor" else None
    network = torch.compile(predict, mode=mode, backend=backend)

    def run(x, t):
        torch.compiler.cudagraph_mark_step_begin()
        torch._dynamo.maybe_mark_dynamic(x, 0)
        return network(
            x, torch.as_tensor(t, device=x.device)
        )  # a CPU's number would stop CUDA graphs

    return run


def gemm(dtype: str = "float32") -> Callable[[], float]:
    """GFLOP/s of a product of square matrices by torch: what the machine can do at this moment."""
    cuda = torch.cuda.is_available()
    size = 8192 if cuda else 2048
    if cuda:
        torch.set_float32_matmul_precision("high")
    a = torch.randn(size, size, device="cuda" if cuda else "cpu", dtype=getattr(torch, dtype))

    def run():
        started = time.perf_counter()
        torch.mm(a, a)
        if cuda:
            torch.cuda.synchronize()
        return 2 * size**3 / (time.perf_counter() - started) / 1e9

    return run
