"""DDPM, DPS and ΠGDM against the course's torch loop, with the same noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel

import jaxdiff as jd
from convert.lift import lifted_time_embedding
from jaxdiff import metrics
from jaxdiff.checkpoint import _finder
from tests.parity import course

STEPS = 100
SIGMA = 10 / 255
METHODS = {
    "ddpm": lambda d, b, y: jd.DDPM(d),
    "dps": lambda d, b, y: jd.DPS(d, b, y, scale=1.0),
    "dps-adaptive": lambda d, b, y: jd.DPS(d, b, y, scale=100.0, step_size="adaptive"),
    "pigdm": lambda d, b, y: jd.PiGDM(d, b, y, SIGMA),
}
SCALE = {"ddpm": 1.0, "dps": 1.0, "dps-adaptive": 100.0, "pigdm": 1.0}


@pytest.fixture(scope="module")
def torch_prior():
    folder = _finder("faces64")("model_index.json").parent
    unet = UNet2DModel.from_pretrained(folder, subfolder="unet", low_cpu_mem_usage=False).eval()
    return folder, unet.requires_grad_(False)


def nhwc(tensor):
    return tensor.numpy().transpose(0, 2, 3, 1)


def run_torch(method, prior, photograph, kernel, dtype, lift):
    """(states [T + 1, H, W, C], noise [T + 1, 1, H, W, C], y [H, W, C])"""
    folder, unet = prior
    torch_dtype = getattr(torch, dtype)
    unet = unet.to(torch_dtype)
    scheduler = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
    if lift:
        course.lift_scheduler(scheduler)
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((STEPS + 1, 1, 3, 64, 64)).astype(dtype)
    image = torch.tensor(photograph.transpose(2, 0, 1)[None].astype(dtype))
    blur = course.TorchBlur(kernel, (64, 64), torch_dtype)
    y = blur(image) + SIGMA * torch.tensor(rng.standard_normal(image.shape).astype(dtype))
    states = course.trajectory(
        method, unet, scheduler, STEPS, torch.tensor(noise),
        blur=blur, y=y, sigma=SIGMA, scale=SCALE[method],
    )  # fmt: skip
    states = np.stack([nhwc(s)[0] for s in states])
    return states, noise.transpose(0, 1, 3, 4, 2), nhwc(y)[0]


@pytest.mark.parametrize("method", METHODS)
def test_same_function_in_float64(method, torch_prior, photograph, kernel, x64):
    with lifted_time_embedding():
        states, noise, y = run_torch(method, torch_prior, photograph, kernel, "float64", lift=True)
    unet, schedule = jd.load("faces64", dtype=jnp.float64)
    blur = jd.operators.Blur(kernel, (64, 64))
    sampler = METHODS[method](jd.Denoiser(unet, schedule), blur, y)
    images, kept = jd.sample(sampler, schedule.steps(STEPS), noise=noise, keep=lambda x, info: x)
    assert images.dtype == jnp.float64
    assert np.abs(np.asarray(kept)[:, 0] - states[1:]).max() <= 1e-8
    final = np.clip(states[-1], -1, 1) / 2 + 0.5
    assert np.abs(np.asarray(images)[0] - final).max() <= 1e-8


OVER = pytest.mark.xfail(
    reason="open: the first step, t = 990, differs by 1.2e-5 and not 1e-5 (issue 2)", strict=False
)


@pytest.mark.parametrize(
    "method",
    ["ddpm", "dps", pytest.param("dps-adaptive", marks=OVER), pytest.param("pigdm", marks=OVER)],
)
def test_single_step_in_float32(method, torch_prior, photograph, kernel, faces64):
    states, noise, y = run_torch(method, torch_prior, photograph, kernel, "float32", lift=False)
    unet, schedule = faces64
    blur, steps = jd.operators.Blur(kernel, (64, 64)), schedule.steps(STEPS)
    sampler = METHODS[method](jd.Denoiser(unet, schedule), blur, y)

    step = jax.jit(lambda sampler, x, c, z: sampler.step(x, c, z)[0])
    rows = steps.astype(jnp.float32)
    for i in (0, 10, 50, 90, 99):
        c = jax.tree.map(lambda a, i=i: a[i], rows)
        x = step(sampler, states[i], c, noise[i + 1, 0])
        assert np.abs(np.asarray(x) - states[i + 1]).max() <= 1e-5, f"step {i}"


@pytest.mark.parametrize("method", METHODS)
def test_trajectory_in_float32(method, torch_prior, photograph, kernel, faces64):
    states, noise, y = run_torch(method, torch_prior, photograph, kernel, "float32", lift=False)
    unet, schedule = faces64
    blur, steps = jd.operators.Blur(kernel, (64, 64)), schedule.steps(STEPS)
    sampler = METHODS[method](jd.Denoiser(unet, schedule), blur, y)
    image = np.asarray(jd.sample(sampler, steps, noise=noise))[0]
    reference = np.clip(states[-1], -1, 1) / 2 + 0.5
    assert np.abs(image - reference).mean() <= 5e-3
    if method != "ddpm":
        difference = metrics.psnr(image, photograph) - metrics.psnr(reference, photograph)
        assert abs(difference) <= 0.1


@pytest.mark.gpu
@pytest.mark.parametrize("method", METHODS)
def test_accelerator(method, torch_prior, photograph, kernel, faces64):
    """At highest precision: steps from the same state, looser than on the CPU by a digit."""
    states, noise, y = run_torch(method, torch_prior, photograph, kernel, "float32", lift=False)
    unet, schedule = faces64
    sampler = METHODS[method](jd.Denoiser(unet, schedule), jd.operators.Blur(kernel, (64, 64)), y)
    rows = schedule.steps(STEPS).astype(jnp.float32)
    step = jax.jit(lambda sampler, x, c, z: sampler.step(x, c, z)[0])
    with jax.default_matmul_precision("highest"):
        for i in (0, 50, 99):
            c = jax.tree.map(lambda a, i=i: a[i], rows)
            x = step(sampler, states[i], c, noise[i + 1, 0])
            assert np.abs(np.asarray(x) - states[i + 1]).max() <= 1e-4, f"step {i}"
