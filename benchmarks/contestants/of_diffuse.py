"""diffuse-jax's samplers."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from diffuse.base_forward_model import MeasurementState  # pyright: ignore[reportMissingImports]
from diffuse.denoisers.cond import DPSDenoiser  # pyright: ignore[reportMissingImports]
from diffuse.denoisers.denoiser import Denoiser  # pyright: ignore[reportMissingImports]
from diffuse.diffusion.sde import SDE, LinearSchedule  # pyright: ignore[reportMissingImports]
from diffuse.integrator.stochastic import EulerMaruyamaIntegrator  # pyright: ignore[reportMissingImports]
from diffuse.predictor import Predictor  # pyright: ignore[reportMissingImports]
from diffuse.timer.base import VpTimer  # pyright: ignore[reportMissingImports]

import jaxdiff as jd
from benchmarks.contestants import SIGMA, Workload, images
from jaxdiff.cli.terminal import cache_compiled_programs
from jaxdiff.util.platform import jit


def contestant(workload: Workload, folder: str) -> Callable[[], Any]:
    """diffuse-jax's samplers on jaxdiff's network, compiled."""
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
