"""deepinv's samplers on diffusers' network in torch: https://github.com/deepinv/deepinv."""

from typing import Any

import numpy as np

from benchmarks.with_azula import adjoint, camera, torchvision_operators
from jaxdiff.operators import Blur, Linear, Mask

METHODS = ("dps", "ddrm", "diffpir")


def library() -> Any:
    """The package, which asks for torchvision."""
    torchvision_operators()
    import deepinv  # pyright: ignore[reportMissingImports]

    return deepinv


def physics(operator, shape, sigma: float) -> Any:
    """One of our operators, of images [n, C, H, W] in [0, 1] from `shape` [H, W, C]: its own where it has one, whose
    measurements are images too; of the others they are vectors [n, D].
    """
    import torch

    deepinv, (h, w, c) = library(), shape
    given = {"noise_model": deepinv.physics.GaussianNoise(sigma)}
    if isinstance(operator, Mask):
        shown = torch.tensor(np.asarray(operator.mask, np.float32)).permute(2, 0, 1)
        return deepinv.physics.Inpainting((c, h, w), mask=shown.expand(c, h, w), **given)
    if isinstance(operator, Blur):
        kernel = torch.tensor(np.asarray(operator.kernel, np.float32))
        return deepinv.physics.BlurFFT(
            (c, h, w), filter=kernel.expand(1, c, *kernel.shape), **given
        )
    seen = camera(operator, images=False)
    if not isinstance(operator, Linear):
        return deepinv.physics.Physics(A=lambda x, **_: seen(x), **given)
    back = adjoint(operator, shape)
    return deepinv.physics.LinearPhysics(A=lambda x, **_: seen(x), A_adjoint=back, **given)


def restored(network, method: str, operator, y, sigma: float, steps: int, seed: int) -> np.ndarray:
    """A posterior sample [1, H, W, 3] in [0, 1], with deepinv's defaults; `network` is `with_azula.denoiser`'s.

    Raises:
        ValueError: where DDRM is asked for an operator that it has no singular vectors of.
    """
    import torch

    deepinv, (h, w, c) = library(), operator.input_shape(np.shape(y))
    seen = physics(operator, (h, w, c), sigma)
    decomposed = isinstance(seen, deepinv.physics.DecomposablePhysics)
    if method == "ddrm" and not decomposed:
        raise ValueError("deepinv ddrm: takes blurs and masks alone")
    levels = network.schedule(torch.arange(1000) / 999)
    levels = levels[1] / levels[0]

    def denoiser(x, sigma, **_):
        """x̂₀ of an image with noise, at the level nearest to its σ."""
        t = (levels - 2 * torch.as_tensor(sigma).flatten()[0]).abs().argmin()
        alpha = 1 / (1 + levels[t] ** 2).sqrt()
        return network((2 * x - 1).float() * alpha, t / 999).mean / 2 + 0.5

    torch.manual_seed(seed)
    measured = torch.tensor(np.asarray(y, np.float32))
    measured = measured.permute(2, 0, 1)[None] if decomposed else measured.reshape(1, -1)
    options: dict[str, Any] = {}
    if method == "dps":
        sampler = deepinv.sampling.DPS(denoiser, num_steps=steps + 1)
        options["x_init"] = (1, c, h, w)
    elif method == "ddrm":
        sampler = deepinv.sampling.DDRM(denoiser, np.linspace(1, 0, steps))
    else:
        fidelity = deepinv.optim.data_fidelity.L2()
        sampler = deepinv.sampling.DiffPIR(denoiser, fidelity, sigma, steps)
    x = sampler(measured, seen, **options)
    return x.clip(0, 1).detach().float().numpy().transpose(0, 2, 3, 1)
