"""The course's torch loop (MVA, Laroche & Almansa), on diffusers' UNet2DModel and DDPMScheduler.

The reference that trajectories are compared with. One image [1, C, H, W] at a time. In float64
the scheduler's tables and the time embedding, which diffusers keeps in float32 whatever the
model's dtype, are lifted to float64 (`lift_scheduler`, `convert.lift`); the formulas are
diffusers' own.
"""

import copy
import time
from typing import Any
from unittest import mock

import numpy as np
import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler


def clean_output(x):
    return (torch.clamp(x, -1, 1) + 1) / 2


class TorchBlur:
    """Circular FFT blur with the kernel at the top left corner, rolled by −⌊size/2⌋."""

    def __init__(self, kernel, shape, dtype):
        padded = torch.zeros(shape, dtype=dtype)
        padded[: kernel.shape[0], : kernel.shape[1]] = torch.as_tensor(kernel, dtype=dtype)
        padded = torch.roll(padded, [-(s // 2) for s in kernel.shape], dims=(0, 1))
        self.fft = torch.fft.fft2(padded)

    def __call__(self, x):
        return torch.fft.ifft2(self.fft * torch.fft.fft2(x)).real

    def solve(self, residual, r2, s2):
        response = torch.conj(self.fft) / (r2 * self.fft.abs() ** 2 + s2)
        return torch.fft.ifft2(response * torch.fft.fft2(residual)).real


def step(method, unet, scheduler, x, t, z, blur: Any = None, y=None, sigma=None, scale=1.0):
    """x_{t−1} of one step; the scheduler's own noise is replaced by z."""
    x = x.detach().requires_grad_(method != "ddpm")
    with torch.set_grad_enabled(method != "ddpm"):
        eps = unet(x, t).sample
        with mock.patch("diffusers.schedulers.scheduling_ddpm.randn_tensor", return_value=z):
            out = scheduler.step(eps, int(t), x)
        x_prev, x0_hat = out.prev_sample, out.pred_original_sample
        if method == "ddpm":
            return x_prev
        x0 = clean_output(x0_hat)
        if method.startswith("dps"):
            misfit = torch.linalg.norm(blur(x0) - y)
            g = torch.autograd.grad(misfit, x)[0]
            eta = 1.0
            if method == "dps-adaptive":
                prev = scheduler.previous_timestep(t)
                one = torch.ones((), dtype=scheduler.alphas_cumprod.dtype)
                a_prev = scheduler.alphas_cumprod[prev] if prev >= 0 else one
                alpha = scheduler.alphas_cumprod[t] / a_prev
                eta = (1 - alpha) / alpha.sqrt()
            return (x_prev - scale * eta * g).detach()
        v = scheduler._get_variance(int(t))
        r2 = v / (1 + v)
        d = blur.solve((y - blur(x0)).detach(), r2, (sigma or 1e-8) ** 2)
        g = torch.autograd.grad((x0 * d).sum(), x)[0]
        return (x_prev + scale * r2 / (1 + v).sqrt() * g).detach()


def trajectory(method, unet, scheduler, num_steps, noise, **kwargs):
    """All states x_T, ..., x_0 (tensors in [-1, 1]); noise: [T + 1, 1, C, H, W]."""
    scheduler.set_timesteps(num_steps)
    states = [noise[0]]
    for i, t in enumerate(scheduler.timesteps):
        states.append(step(method, unet, scheduler, states[-1], t, noise[i + 1], **kwargs))
    return states


def lift_scheduler(scheduler) -> Any:
    """Recompute a linear schedule's tables in float64."""
    c = scheduler.config
    assert c.beta_schedule == "linear" and not c.rescale_betas_zero_snr
    scheduler.betas = torch.linspace(
        c.beta_start, c.beta_end, c.num_train_timesteps, dtype=torch.float64
    )
    scheduler.alphas = 1 - scheduler.betas
    scheduler.alphas_cumprod = torch.cumprod(scheduler.alphas, 0)
    scheduler.one = torch.ones((), dtype=torch.float64)
    return scheduler


def load_prior(folder):
    """(UNet2DModel, DDPMScheduler) of a diffusers folder."""
    unet = UNet2DModel.from_pretrained(folder, subfolder="unet", low_cpu_mem_usage=False)
    scheduler = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
    return unet.eval().requires_grad_(False), scheduler


def nhwc(tensor):
    return tensor.numpy(force=True).transpose(0, 2, 3, 1)


class TorchRun:
    """One restoration by the course's loop, kept as arrays that JAX can be compared with.

    `states` [T + 1, H, W, C] in [-1, 1], `noise` [T + 1, 1, H, W, C], `y` [H, W, C]; `seconds`,
    what the loop took. With `lift`, diffusers' tables are lifted to float64.
    """

    def __init__(
        self, method, unet, scheduler, image, kernel, sigma, steps, dtype="float32", lift=False
    ):
        self.method, self.dtype, self.steps = method, getattr(torch, dtype), steps
        self.unet = unet.to(torch.get_default_device(), self.dtype)
        self.scheduler = DDPMScheduler.from_config(scheduler.config)
        if lift:
            lift_scheduler(self.scheduler)
        rng = np.random.default_rng(0)
        x = torch.tensor(image.transpose(2, 0, 1)[None].astype(dtype))
        noise = rng.standard_normal((steps + 1, *x.shape)).astype(dtype)
        blur = TorchBlur(kernel, x.shape[-2:], self.dtype)
        y = blur(x) + sigma * torch.tensor(rng.standard_normal(x.shape).astype(dtype))
        scale = 100.0 if method == "dps-adaptive" else 1.0
        self._noise = torch.tensor(noise)
        self._measured = {"blur": blur, "y": y, "sigma": sigma, "scale": scale}
        start = time.perf_counter()
        states = trajectory(method, self.unet, self.scheduler, steps, self._noise, **self._measured)
        self.seconds = time.perf_counter() - start
        self.states = np.stack([nhwc(s)[0] for s in states])
        self.noise, self.y = noise.transpose(0, 1, 3, 4, 2), nhwc(y)[0]

    def step(self, i, exact=False):
        """Step i from `states[i]`, by a scheduler whose tables are lifted; `exact`: in float64."""
        ours: Any = self.scheduler
        scheduler = lift_scheduler(DDPMScheduler.from_config(ours.config))
        scheduler.set_timesteps(self.steps)
        x = torch.tensor(self.states[i].transpose(2, 0, 1)[None])
        t, z, unet, measured = scheduler.timesteps[i], self._noise[i + 1], self.unet, self._measured
        if exact:
            x, z, unet = x.double(), z.double(), copy.deepcopy(unet).double()
            y, fft = measured["y"].double(), measured["blur"].fft.to(torch.complex128)
            blur = copy.copy(measured["blur"])
            blur.fft, measured = fft, measured | {"y": y, "blur": blur}
        out = step(self.method, unet, scheduler, x, t, z, **measured)
        assert out.dtype == (torch.float64 if exact else self.dtype)
        return nhwc(out)[0]
