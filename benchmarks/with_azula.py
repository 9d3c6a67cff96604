"""azula's samplers on diffusers' network in torch: https://github.com/probabilists/azula."""

import contextlib
import functools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.operators import Linear

METHODS = ("dps", "mmps", "tmpd", "diffpir")


@functools.cache  # they last while this does
def torchvision_operators() -> Any:
    """The names that torchvision's wheel for CUDA wants, and torch without CUDA lacks: nothing here calls them."""
    import torch

    known = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):  # there already
            known.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return known


def denoiser(folder: str) -> Any:
    """Its interface to a checkpoint: x̂₀ from ε̂, clipped, at time t in [0, 1]."""
    torchvision_operators()  # diffusers imports torchvision where it is there
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


@partial(jax.jit, static_argnames="images")
def _forward(operator, x, images: bool):
    x = jnp.moveaxis(x, -3, -1)
    return jax.vmap(operator)(x / 2 + 0.5 if images else x).reshape(len(x), -1)


@partial(jax.jit, static_argnames="images")
def _backward(operator, x, v, images: bool):
    return jax.vjp(lambda x: _forward(operator, x, images), x)[1](v)[0]


@partial(jax.jit, static_argnames="images")
def _tangent(operator, x, v, images: bool):
    return jax.jvp(lambda x: _forward(operator, x, images), (x,), (v,))[1]


def camera(operator, images: bool):
    """One of our operators in torch: of states [n, 3, H, W] in [-1, 1], or of `images` in [0, 1] that they stand
    for, to vectors [n, D], which its solvers want; with the derivatives of both modes.
    """
    import torch

    functorch: Any = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue]

    def plain(t):
        """Its numbers, also in `torch.func.jvp`, where what it computes with has no storage of its own."""
        with torch._C._DisableFuncTorch():
            while functorch.is_functorch_wrapped_tensor(t):
                t = functorch.get_unwrapped(t)
            return t.detach().numpy()

    def call(function, *tensors):
        found = function(operator, *map(plain, tensors), images)
        return torch.from_numpy(np.array(found, np.float32))

    class Camera(torch.autograd.Function):
        @staticmethod
        def forward(x):
            return call(_forward, x)

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(inputs[0])
            ctx.save_for_forward(inputs[0])

        @staticmethod
        def backward(ctx, *v):
            return call(_backward, *ctx.saved_tensors, *v)

        @staticmethod
        def jvp(ctx, *v):
            return call(_tangent, *ctx.saved_tensors, *v)

    return Camera.apply


def adjoint(operator, shape):
    """Of a linear operator on images of `shape` [H, W, C]: from vectors [n, D] to images [n, C, H, W]."""
    import torch

    h, w, c = shape

    def call(v, **_):
        x = np.zeros((len(v), c, h, w), np.float32)
        return torch.from_numpy(np.array(_backward(operator, x, v.detach().numpy(), False)))

    return call


def restored(
    network, method: str, operator, y, sigma: float, steps: int, count: int, seed: int, **options
):
    """`count` posterior samples of one measurement y: [count, H, W, 3] in [0, 1].

    With azula's defaults where `options` do not say otherwise. Linear operators act on states, and y and its
    noise are in their units; others on the images, and so does what is compared. Of "dps" a draw at a time: it
    divides by one norm over all that it is given.
    """
    import torch
    from azula.guidance.diffpir import DiffPIRDenoiser  # pyright: ignore[reportMissingImports]
    from azula.guidance.dps import DPSSampler  # pyright: ignore[reportMissingImports]
    from azula.guidance.mmps import MMPSDenoiser  # pyright: ignore[reportMissingImports]
    from azula.guidance.tmpd import TMPDenoiser  # pyright: ignore[reportMissingImports]
    from azula.linalg.covariance import IsotropicCovariance  # pyright: ignore[reportMissingImports]
    from azula.sample import DDPMSampler  # pyright: ignore[reportMissingImports]

    assert count == 1 or method != "dps"
    torch.manual_seed(seed)
    shape = operator.input_shape(np.shape(y))
    linear = isinstance(operator, Linear)
    if linear:
        y, sigma = 2 * y - np.asarray(operator(np.ones(shape, np.float32))), 2 * sigma
    measured = torch.tensor(np.tile(np.ravel(y), (count, 1)), dtype=torch.float32)
    given = network, measured, camera(operator, images=not linear)
    if method == "dps":
        sampler = DPSSampler(*given, steps=steps, silent=True, **options)
    else:
        noise = IsotropicCovariance(sigma**2) if method == "mmps" else sigma**2
        guided = {"mmps": MMPSDenoiser, "tmpd": TMPDenoiser, "diffpir": DiffPIRDenoiser}[method]
        sampler = DDPMSampler(guided(*given, noise, **options), steps=steps, silent=True)
    h, w, c = shape
    x = sampler(torch.randn(count, c, h, w))
    return (x.clip(-1, 1) / 2 + 0.5).detach().numpy().transpose(0, 2, 3, 1)
