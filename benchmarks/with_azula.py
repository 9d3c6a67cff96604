"""azula's samplers on diffusers' network in torch: https://github.com/probabilists/azula."""

from typing import Any

import numpy as np


def denoiser(folder: str) -> Any:
    """Its interface to a checkpoint: x̂₀ from ε̂, clipped, at time t in [0, 1]."""
    import torch
    from azula.denoise import Denoiser, DiracPosterior  # pyright: ignore[reportMissingImports]
    from diffusers.models.unets.unet_2d import UNet2DModel
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    device = torch.get_default_device()
    alphas_cumprod = DDPMScheduler().alphas_cumprod.to(device)

    class Network(Denoiser):
        def __init__(self, unet):
            super().__init__()
            self.unet = unet

        def schedule(self, t):
            a = alphas_cumprod[(999 * t).round().long()]
            return a.sqrt(), (1 - a).sqrt()

        def forward(self, x_t, t, **kwargs):
            signal, noise = self.schedule(t)
            eps = self.unet(x_t, 999 * t).sample
            return DiracPosterior(((x_t - noise * eps) / signal).clip(-1, 1))

    unet: Any = UNet2DModel.from_pretrained(folder, low_cpu_mem_usage=False)
    return Network(unet.to(device).eval().requires_grad_(False))


def mmps(network, kernel, y: np.ndarray, sigma, steps: int, iterations: int, count: int, seed: int):
    """`count` posterior samples of each blurred image y [N, H, W, 3]: [N, count, H, W, 3] in [0, 1].

    By MMPS on a `denoiser` with azula's defaults but for its solver's iterations (1); image by image.
    """
    import torch
    from azula.guidance.mmps import MMPSDenoiser  # pyright: ignore[reportMissingImports]
    from azula.linalg.covariance import IsotropicCovariance  # pyright: ignore[reportMissingImports]
    from azula.sample import DDPMSampler  # pyright: ignore[reportMissingImports]

    from convert import course

    torch.manual_seed(seed)
    blur = course.TorchBlur(kernel, y.shape[1:3], torch.float32)
    noise, found = IsotropicCovariance((2 * sigma) ** 2), []

    def camera(x):  # vectors, which its solver wants
        return blur(x).flatten(1)

    for one in y:
        measured = torch.tensor(one.transpose(2, 0, 1)[None].repeat(count, 0))
        half = torch.full_like(measured, 0.5)
        measured = 2 * (measured - blur(half)).flatten(1)  # of images in [-1, 1]
        guided = MMPSDenoiser(network, measured, camera, noise, iterations=iterations)
        x = DDPMSampler(guided, steps=steps, silent=True)(torch.randn_like(half))
        found.append((x.clip(-1, 1) / 2 + 0.5).detach().numpy().transpose(0, 2, 3, 1))
    return np.stack(found)
