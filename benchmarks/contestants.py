"""Contestants of `python -m benchmarks` in a process: `python -m benchmarks.contestants`.

Reads names from stdin. At each that contestant does its work and it answers with the seconds; at the
end of input, with the peak memory. One alone in a process has the cores and the memory for itself;
where all are in one, the threads of whoever was before still spin on them.
"""

import argparse
import contextlib
import dataclasses
import functools
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

SIGMA = 10 / 255
TURN = 0.3  # seconds
# Who takes part, in what: the peers have no network of their own to train here, and diffuse-jax no ΠGDM.
SAMPLERS = ("ddpm", "dps", "pigdm")
METHODS = {
    "jaxdiff": ("forward", *SAMPLERS, "train"),
    "torch": ("forward", *SAMPLERS, "train"),
    "torch channels_last": ("forward", *SAMPLERS, "train"),
    "torch.compile": ("forward", *SAMPLERS, "train"),
    "azula": SAMPLERS,
    "diffuse-jax": SAMPLERS[:2],
}
PACKAGES = {"azula": "azula", "diffuse-jax": "diffuse"}
COMPILED = {  # the modes of torch.compile; those beyond the first take part on a GPU only
    "torch.compile": None,
    "torch.compile CUDA graphs": "reduce-overhead",
    "torch.compile max-autotune": "max-autotune",
}


@dataclasses.dataclass(frozen=True)
class Workload:
    """A method on a checkpoint's network: so many steps of so many images at once.

    `remat` is jaxdiff's; the others do what they do without. `dtype` is what the network computes
    in; states are float32.
    """

    checkpoint: str
    size: int
    method: str
    batch: int
    steps: int = 1
    remat: bool = False
    dtype: str = "float32"

    def __str__(self):
        steps = f", {self.steps} steps" if self.steps > 1 else ""
        remat = ", remat" if self.remat else ""
        dtype = "" if self.dtype == "float32" else f", {self.dtype}"
        return f"{self.checkpoint} {self.size}², {self.method}, batch {self.batch}{steps}{remat}{dtype}"


def images(workload: Workload) -> np.ndarray:
    shape = (workload.batch, workload.size, workload.size, 3)
    return np.random.default_rng(0).standard_normal(shape).astype("f")


def of_jax(workload: Workload, folder: str) -> Callable[[], Any]:
    import jax
    import jax.numpy as jnp
    from flax import nnx

    import jaxdiff as jd
    from jaxdiff.cli.terminal import cache_compiled_programs
    from jaxdiff.samplers.presets import preset
    from jaxdiff.train import loop as train
    from jaxdiff.util.platform import jit

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
    import jaxdiff as jd

    return dataclasses.replace(jd.SpectralCovariance.load("faces64"), weights=None)


@functools.cache  # of a process with several workloads
def _load(folder: str, dtype: str) -> tuple[Any, Any]:
    import jaxdiff as jd

    return jd.load(folder, dtype=dtype)


def of_torch(workload: Workload, folder: str, kind: str) -> Callable[[], Any]:
    """On the GPU where torch sees one; `kind` is the contestant's name."""
    import torch

    make = _of_azula if kind == "azula" else partial(_of_torch, kind=kind)
    if torch.cuda.is_available():
        torch.set_default_device("cuda")
        torch.set_float32_matmul_precision("high")  # TF32, which is JAX's default
        torch.backends.cudnn.benchmark = True  # XLA tries convolutions too

        def finished(run):
            run()
            torch.cuda.synchronize()

        return partial(finished, make(workload, folder))
    return make(workload, folder)


def _of_torch(workload: Workload, folder: str, kind: str) -> Callable[[], Any]:
    import torch
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    from convert import course

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
    import torch
    from diffusers.models.unets.unet_2d import UNet2DModel

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
    import torch

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


def _of_azula(workload: Workload, folder: str) -> Callable[[], Any]:
    """azula's samplers on diffusers' network in torch; its ΠGDM asks for a pseudo-inverse."""
    import azula.sample  # pyright: ignore[reportMissingImports]
    import torch
    from azula.guidance.dps import DPSSampler  # pyright: ignore[reportMissingImports]
    from azula.guidance.pgdm import PGDMSampler  # pyright: ignore[reportMissingImports]

    from benchmarks import with_azula
    from convert import course

    device = torch.get_default_device()
    denoiser = with_azula.denoiser(folder)
    x = torch.tensor(images(workload).transpose(0, 3, 1, 2), device=device)
    blur = course.TorchBlur(np.ones((9, 9)) / 81, x.shape[-2:], x.dtype)
    options: dict[str, Any] = {"steps": workload.steps, "silent": True}
    if workload.method != "ddpm":
        options |= {"y": x.clip(-1, 1), "A": blur}
    if workload.method == "pigdm":
        options |= {"A_inv": lambda y: blur.solve(y, 1.0, 1e-4), "eta": 1.0}
    kinds: dict[str, Any] = {
        "ddpm": azula.sample.DDPMSampler, "dps": DPSSampler, "pigdm": PGDMSampler
    }  # fmt: skip
    sampler = kinds[workload.method](denoiser, **options)
    return lambda: sampler(x)


def of_diffuse(workload: Workload, folder: str) -> Callable[[], Any]:
    """diffuse-jax's samplers on jaxdiff's network, compiled."""
    import jax
    import jax.numpy as jnp
    from diffuse.base_forward_model import MeasurementState  # pyright: ignore[reportMissingImports]
    from diffuse.denoisers.cond import DPSDenoiser  # pyright: ignore[reportMissingImports]
    from diffuse.denoisers.denoiser import Denoiser  # pyright: ignore[reportMissingImports]
    from diffuse.diffusion.sde import SDE, LinearSchedule  # pyright: ignore[reportMissingImports]
    from diffuse.integrator.stochastic import EulerMaruyamaIntegrator  # pyright: ignore[reportMissingImports]
    from diffuse.predictor import Predictor  # pyright: ignore[reportMissingImports]
    from diffuse.timer.base import VpTimer  # pyright: ignore[reportMissingImports]

    import jaxdiff as jd
    from jaxdiff.cli.terminal import cache_compiled_programs
    from jaxdiff.util.platform import jit

    cache_compiled_programs()
    unet, _ = jd.load(folder)
    x = images(workload)
    blur = jd.operators.Blur(np.ones((9, 9)) / 81, (workload.size, workload.size))
    beta: Any = LinearSchedule(b_min=0.1, b_max=20.0, t0=0.0, T=1.0)
    model = SDE(beta)
    timer = VpTimer(n_steps=workload.steps, eps=0.001, tf=1.0)

    def generate(unet, blur, y, key):
        def network(x, t):
            return unet(x[None], 999 * t)[0]

        class Camera:
            std = SIGMA

            def apply(self, img, measurement_state):
                return blur(img)

        camera: Any = Camera()
        shared: dict[str, Any] = {
            "integrator": EulerMaruyamaIntegrator(model=model, timer=timer),
            "model": model,
            "predictor": Predictor(model, network, "noise"),
            "x0_shape": x.shape[1:],
        }
        if workload.method == "ddpm":
            state, _ = Denoiser(**shared).generate(key, workload.steps, workload.batch)
        else:
            dps = DPSDenoiser(**shared, forward_model=camera)
            known = MeasurementState(y, jnp.zeros(()))
            state, _ = dps.generate(key, known, workload.steps, workload.batch)
        return state.integrator_state.position

    run = jit(generate)
    y, key = np.clip(x[0], -1, 1), jax.random.key(0)
    return lambda: jax.block_until_ready(run(unet, blur, y, key))


def gemm(dtype: str = "float32") -> Callable[[], float]:
    """GFLOP/s of a product of square matrices by torch: what the machine can do at this moment."""
    import torch

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


def peak_mb(name: str) -> float:
    """The most memory of the accelerator that was in use, or where there is none, resident."""
    if name.startswith(("jaxdiff", "diffuse-jax")):
        import jax

        stats = jax.devices()[0].memory_stats()
        if stats:
            return stats["peak_bytes_in_use"] / 2**20
    else:
        import torch

        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated() / 2**20
    try:  # not getrusage's ru_maxrss, which a process has from the one that started it
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:  # no Linux
        return float("nan")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def contestant(name: str, workload: Workload, folder: str) -> Callable[[], Any]:
    """What does the work, once a call."""
    if name == "gemm":
        return gemm(workload.dtype)
    if name.startswith("jaxdiff"):  # and one with JAXDIFF_CHOICES
        return of_jax(workload, folder)
    return (
        of_diffuse(workload, folder) if name == "diffuse-jax" else of_torch(workload, folder, name)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Contestants; see python -m benchmarks.")
    parser.add_argument("names", help=f"with commas between, of {', '.join(METHODS)}, gemm")
    parser.add_argument("folder")
    parser.add_argument("workload", help="JSON")
    arguments = parser.parse_args()
    workload = Workload(**json.loads(arguments.workload))
    names, warm = arguments.names.split(","), {}
    if unknown := set(names) - {*METHODS, "gemm"}:
        parser.error(f"no such contestant: {', '.join(unknown)}")
    for name in names:
        started = time.perf_counter()
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for the answers
            run = contestant(name, workload, arguments.folder)
            run()
        print("first", flush=True)
        runs, second = 1, time.perf_counter()
        if second - started < 20:  # once more: the second is not as the third yet
            with contextlib.redirect_stdout(sys.stderr):
                run()
            # Of short work several runs make a turn: the first finds another's data in the caches.
            runs = max(1, round(TURN / (time.perf_counter() - second)))
        warm[name] = run, runs
        print("warm", flush=True)
    for line in sys.stdin:
        run, runs = warm[line.strip()]
        started = time.perf_counter()
        with contextlib.redirect_stdout(sys.stderr):
            said = [run() for _ in range(runs)]
        seconds = (time.perf_counter() - started) / runs
        print(max(said) if line.strip() == "gemm" else seconds, flush=True)
    print(peak_mb(names[0]), flush=True)


if __name__ == "__main__":
    main()
