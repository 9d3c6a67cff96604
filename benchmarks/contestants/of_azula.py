"""azula's samplers, in torch."""

from collections.abc import Callable
from typing import Any

import azula.sample  # pyright: ignore[reportMissingImports]
import numpy as np
import torch
from azula.guidance.dps import DPSSampler  # pyright: ignore[reportMissingImports]
from azula.guidance.pgdm import PGDMSampler  # pyright: ignore[reportMissingImports]

from benchmarks import with_azula
from benchmarks.contestants import Workload, images
from convert import course


def contestant(workload: Workload, folder: str) -> Callable[[], Any]:
    """azula's samplers on diffusers' network in torch; its ΠGDM asks for a pseudo-inverse."""
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
