# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---
# %% [markdown]
# # 3. torch and JAX: the same function
#
# The course's torch loop, on diffusers' own `UNet2DModel` and `DDPMScheduler`, and jaxdiff, fed with the same
# noise. Needs the extra `convert` too (torch, diffusers). The torch loop is `convert/course.py` of the repository.

# %%
import os

import jax
import jax.numpy as jnp
import numpy as np

import jaxdiff as jd
from jaxdiff import data, metrics, plot

REDUCED = bool(os.environ.get("JAXDIFF_REDUCED"))  # set by the tests: fewer steps and images
print("jax", jax.__version__, "sees", jax.devices()[0].platform, jax.devices())

# %%
import subprocess
import sys
import tempfile
import time
from importlib.metadata import metadata
from importlib.util import find_spec
from pathlib import Path

if find_spec("convert") is None:  # the repository's side of torch, which the package leaves out
    urls = dict(url.split(", ") for url in metadata("jaxdiff").get_all("Project-URL"))
    clone = tempfile.mkdtemp()
    command = ["git", "clone", "--quiet", "--depth", "1", urls["Homepage"], clone]
    subprocess.run(command, check=True)
    needed = [sys.executable, "-m", "pip", "install", "--quiet", f"{clone}[convert]"]
    subprocess.run(needed, check=True)
    sys.path.insert(0, clone)
import diffusers
import torch

from convert.course import TorchRun, load_prior
from convert.lift import lifted_time_embedding

MODEL = "faces64"  # or a folder of "google/ddpm-ema-celebahq-256", downloaded
folder = Path(jd.__file__).parent / "priors" / "faces64" if MODEL == "faces64" else Path(MODEL)
T, SIGMA = (5 if REDUCED else 100), 10 / 255
torch_unet, scheduler = load_prior(folder)
unet, schedule = jd.load(MODEL)
photo = data.course_dataset(size=unet.config.size[0])[1].image
kernel = data.motion_kernel(17, seed=0)
steps = schedule.steps(T)
diffusers.logging.set_verbosity_error()
print("torch", torch.__version__, "with", torch.get_num_threads(), "threads")


def jax_sampler(unet, y):
    blur = jd.operators.Blur(kernel, photo.shape[:2])
    return jd.PiGDM(jd.Denoiser(unet, schedule), blur, y, SIGMA)


def state(x, info):
    return x


# %% [markdown]
# One evaluation of the network first, of the photograph with the noise of $t=300$:

# %% tags=["stable"]
x_t = schedule.add_noise(2 * photo - 1, np.random.default_rng(1).standard_normal(photo.shape), 300)
x_t = np.asarray(x_t, "f")
with torch.no_grad():
    eps = torch_unet(torch.tensor(x_t.transpose(2, 0, 1)[None]), 300).sample
a = schedule.alphas_cumprod[300]
in_torch = (x_t - np.sqrt(1 - a) * eps[0].numpy().transpose(1, 2, 0)) / np.sqrt(a)
in_jax = jd.Denoiser(unet, schedule)(x_t, 300)
assert np.abs(np.clip(in_torch, -1, 1) - in_jax).max() < 1e-4
for name, x0_hat in {"torch": in_torch, "JAX": in_jax}.items():
    print(f"{name}: x̂₀ has {metrics.psnr(np.clip(x0_hat, -1, 1) / 2 + 0.5, photo):.2f} dB")

# %% [markdown]
# ## float64: the same function
#
# ΠGDM, every state $x_t$ of both. diffusers computes its schedule and time embedding in float32 whatever the
# model's type; for this comparison both are lifted to float64 in torch. Nothing else is touched.

# %%
with jax.enable_x64(True), lifted_time_embedding():
    run64 = TorchRun(
        "pigdm", torch_unet, scheduler, photo, kernel, SIGMA, T, dtype="float64", lift=True
    )
    unet64, _ = jd.load(MODEL, dtype=jnp.float64)
    _, states64 = jd.sample(jax_sampler(unet64, run64.y), steps, noise=run64.noise, keep=state)
difference64 = np.abs(np.asarray(states64)[:, 0] - run64.states[1:])
print(f"largest difference over all {T} steps: {difference64.max():.1e}")
assert difference64.max() < 1e-8

# %% [markdown]
# ## float32: the same function, rounded twice
#
# diffusers as it comes, nothing lifted.

# %%
run32 = TorchRun("pigdm", torch_unet, scheduler, photo, kernel, SIGMA, T)
image, states32 = jd.sample(jax_sampler(unet, run32.y), steps, noise=run32.noise, keep=state)
difference32 = np.abs(np.asarray(states32)[:, 0] - run32.states[1:])
print(f"at the end: mean {difference32[-1].mean():.1e}, max {difference32[-1].max():.1e}")
assert difference32[-1].mean() < 5e-3

# %%
plot.differences(
    {
        "float32, max": difference32.max((1, 2, 3)),
        "float32, mean": difference32.mean((1, 2, 3)),
        "float64, max": difference64.max((1, 2, 3)),
        "float64, mean": difference64.mean((1, 2, 3)),
    },
    bounds=(5e-3, 1e-8),
)

# %% [markdown]
# **Where it grows.** Rounding is 1e-7 in float32 and 1e-16 in float64. The *first* step already makes 1e-4 and 1e-13 of it:
# from pure noise $\hat x_0=(x_t-\sqrt{1-\bar\alpha_t}\,\varepsilon_\theta)/\sqrt{\bar\alpha_t}$ multiplies the network's rounding by $1/\sqrt{\bar\alpha_t}\approx 145$,
# and the guidance feeds that through a deconvolution and the network's Jacobian once more. Then measurement and denoising pull both
# runs to one image, and the difference shrinks, the same way in both types. In the last steps float32 rises again and float64 does
# not: diffusers' float32 $1-\bar\alpha_t$ has four good digits at small t, jaxdiff's tables are float64, and in the float64 run
# diffusers' were lifted. How much is amplified depends on image, kernel and method (in the tests, on the bundled portrait, the mean at
# the end is 4e-5 for ΠGDM, 1e-5 for adaptive DPS and 2e-6 for DDPM): so float32 trajectories are compared by their mean and by
# PSNR, and float64 shows that it is the same function. The
# two *pictures* agree:

# %%
reference = np.clip(run32.states[-1], -1, 1) / 2 + 0.5
panels = [("ground truth", photo), plot.scored("degraded", run32.y, photo)]
panels += [plot.scored("torch", reference, photo), plot.scored("JAX", image[0], photo)]
panels += [("difference × 10,000, around grey", 0.5 + 1e4 * (np.asarray(image[0]) - reference))]
plot.comparison(panels)

# %% [markdown]
# ## Seconds a step
#
# Both loops in one run, in turns, the median of three; JAX is compiled before (how long that takes is printed). On a GPU
# move the torch network there for a fair comparison: here torch runs on the CPU.

# %%
noise = run32.noise
start = time.perf_counter()
jax.block_until_ready(jd.sample(jax_sampler(unet, run32.y), steps, noise=noise))
print(f"first call, with compilation: {time.perf_counter() - start:.1f} s")
torch_seconds, jax_seconds = [], []
for _ in range(1 if REDUCED else 3):
    torch_seconds.append(TorchRun("pigdm", torch_unet, scheduler, photo, kernel, SIGMA, T).seconds)
    start = time.perf_counter()
    jax.block_until_ready(jd.sample(jax_sampler(unet, run32.y), steps, noise=noise))
    jax_seconds.append(time.perf_counter() - start)
torch_step, jax_step = (1e3 * np.median(s) / T for s in (torch_seconds, jax_seconds))
print(f"torch {torch_step:.0f} ms a step, JAX {jax_step:.0f} ms: {torch_step / jax_step:.2f} times")
