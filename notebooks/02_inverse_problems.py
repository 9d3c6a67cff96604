# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---
# %% [markdown]
# # 2. Inverse problems: DPS and ΠGDM
#
# $y=k*x+\sigma n$: a photograph, blurred by a shaking camera, with noise. The prior of the first notebook is
# conditioned on it, without training anything.

# %% [markdown]
# ## Set-up
#
# On your own machine: `pip install -e ".[notebooks]"` in a clone of the repository, and nothing else. On
# Colab: clone the repository in a cell (`!git clone …`), then `%pip install ./jaxdiff` and choose a GPU
# under *Runtime*: JAX is installed there for it. JAX uses the first accelerator it sees;
# `jax.default_device(jax.devices("cpu")[0])` would choose another. Nothing below depends on which.

# %%
# %matplotlib inline
import os

import jax
import jax.numpy as jnp
import numpy as np

import jaxdiff as jd
from jaxdiff import data, metrics, plot

REDUCED = bool(os.environ.get("JAXDIFF_REDUCED"))  # set by the tests: fewer steps and images
print("jax", jax.__version__, "sees", jax.devices()[0].platform, jax.devices())

# %%
import tempfile

from IPython.display import Markdown

from jaxdiff.commands.evaluate import evaluate, markdown

MODEL = "faces64"  # or "google/ddpm-ema-celebahq-256"
unet, schedule = jd.load(MODEL)
denoiser = jd.Denoiser(unet, schedule)
size = denoiser.shape[0]
T = 5 if REDUCED else 100

# %% [markdown]
# ## The data
#
# As the course's `Dataset` draws it: for each image a random kernel, padded to 33×33 and not normalised,
# and a random σ of 5, 10 or 20 in 255. `ROOT` may be a folder with images and a `.mat` of kernels (the
# course's layout); `None` takes the bundled photographs, which the prior was not trained on, and generated
# camera shakes. Item i depends on the seed and on i alone.

# %%
ROOT = None
dataset = data.course_dataset(ROOT, size=size, seed=0)
panels = []
for m in map(dataset.__getitem__, range(3)):
    panels += [("ground truth", m.image), ("kernel", m.kernel[..., None] / m.kernel.max())]
    panels += [plot.scored(f"degraded, σ = {255 * m.sigma:.0f}/255", m.y, m.image)]
plot.comparison(panels, columns=6)

# %% [markdown]
# One of them for the rest of this notebook, and its blur as an operator: circular, by FFT.

# %%
m = dataset[1]
blur = jd.operators.Blur(m.kernel, (size, size))
steps, key = schedule.steps(T), jax.random.key(0)
results = {}

# %% [markdown]
# ## DPS
#
# By Bayes, $\nabla\log p_t(x_t\mid y)=\nabla\log p_t(x_t)+\nabla\log p_t(y\mid x_t)$. The second term is an integral
# over all $x_0$; DPS (Chung et al. 2022) puts the mean $\hat x_0(x_t)$ in its place, and steps along
# $$x_{t-1}=\text{DDPM step}-\zeta\,\eta_t\,\nabla_{x_t}\lVert A\hat x_0(x_t)-y\rVert_2,$$
# the gradient taken through the network. *Fixed*: $\eta_t=1$, ζ = 1. *Adaptive*: $\eta_t=\beta_t/\sqrt{\alpha_t}$ (question 6), ζ = 100.

# %%
dps = jd.DPS(denoiser, blur, m.y, scale=1.0)
results["DPS fixed"] = jd.sample(dps, steps, key=key)[0]
adaptive = jd.DPS(denoiser, blur, m.y, scale=100.0, step_size="adaptive")
results["DPS adaptive"] = jd.sample(adaptive, steps, key=key)[0]

# %% [markdown]
# ## ΠGDM
#
# Instead of a point, a Gaussian: $p(x_0\mid x_t)\approx N(\hat x_0,r_t^2I)$, so $p(y\mid x_t)\approx N(A\hat x_0,\,r_t^2AA^T+\sigma^2I)$,
# whose gradient is one vector-Jacobian product with $A^T(r_t^2AA^T+\sigma^2I)^{-1}(y-A\hat x_0)$: a division in
# Fourier space. The course takes $r_t^2=v/(1+v)$ with the DDPM posterior variance v (`variance="course"`); the paper
# (Song et al. 2023) takes $r_t^2=1-\bar\alpha_t$ (`variance="paper"`), and needs few steps.

# %%
pigdm = jd.PiGDM(denoiser, blur, m.y, m.sigma)
results["ΠGDM, course"] = jd.sample(pigdm, steps, key=key)[0]
paper = jd.PiGDM(denoiser, blur, m.y, m.sigma, variance="paper")
few = schedule.steps(3 if REDUCED else 20)
results["ΠGDM, paper"] = jd.sample(paper, few, key=key)[0]

# %%
panels = [("ground truth", m.image), plot.scored("degraded", m.y, m.image)]
panels += [plot.scored(name, image, m.image) for name, image in results.items()]
for name, image in results.items():
    psnr, ssim = metrics.psnr(image, m.image), metrics.ssim(np.asarray(image), m.image)
    print(f"{name:14s} {psnr:6.2f} dB   SSIM {ssim:.3f}")
plot.comparison(panels, columns=6)

# %% [markdown]
# These are *draws* from an approximate posterior. Several of them show what the measurement left open:

# %%
draws = jd.sample(paper, few, key=key, n=2 if REDUCED else 8)
plot.posterior(draws, m.image, before=[("degraded", m.y)], shown=3)

# %% [markdown]
# ## Question 5. The gradient of DPS
#
# $f(x_t)=\lVert A\,c(\hat x_0(x_t))-y\rVert_2$, with c the map to [0, 1] that clips: the chain rule gives
# $\nabla f=J_{\hat x_0}^T\,c'\,A^T\frac{A c(\hat x_0)-y}{\lVert A c(\hat x_0)-y\rVert}$, with $c'=\tfrac12$ where nothing is
# clipped and 0 where something is, and $J_{\hat x_0}$ the network's Jacobian, which `jax.grad` multiplies without forming it.
# Against central differences in float64, along a random direction:

# %%
with jax.enable_x64(True):
    dps64 = jd.DPS(jd.Denoiser(*jd.load(MODEL, dtype=jnp.float64)), blur, m.y)

    @jax.jit
    def f(dps, x, t):  # what the compiled function needs comes in as an argument: DPS is a pytree
        x0 = jnp.clip(dps.denoiser(x, t), -1, 1) / 2 + 0.5
        return jnp.linalg.norm(dps.operator(x0) - dps.y)

    t = 400
    rng = np.random.default_rng(0)
    x_t = np.asarray(schedule.add_noise(2 * m.image - 1, rng.standard_normal(m.image.shape), t))
    gradient = jax.jit(jax.grad(f, argnums=1))(dps64, x_t, t)
    d = rng.standard_normal(x_t.shape)
    for h in (1e-3, 1e-4, 1e-5):
        numeric = (f(dps64, x_t + h * d, t) - f(dps64, x_t - h * d, t)) / (2 * h)
        exact = (gradient * d).sum()
        print(f"h = {h:.0e}: {float(numeric):.10f} against {float(exact):.10f}")

# %% [markdown]
# ## Question 6. Why $\eta_t=\beta_t/\sqrt{\alpha_t}$
#
# Question 4: a step is $x_{t-1}=(x_t+\beta_t\,s)/\sqrt{\alpha_t}+\sigma_tz$ with the score $s$. Put the *posterior* score
# there, $s=\nabla\log p_t(x_t)+\nabla\log p_t(y\mid x_t)$:
# $$x_{t-1}=\text{DDPM step}+\frac{\beta_t}{\sqrt{\alpha_t}}\nabla_{x_t}\log p_t(y\mid x_t).$$
# The weight is not a matter of taste. What is left to choose is $p_t(y\mid x_t)$: with $N(A\hat x_0,s^2I)$ the
# gradient is $-\frac{1}{2s^2}\nabla\lVert A\hat x_0-y\rVert^2=-\frac{\lVert A\hat x_0-y\rVert}{s^2}\nabla\lVert A\hat x_0-y\rVert$, and the factor before
# the norm's gradient is the scale ζ ≈ 100 of the course.
#
# The check, on a Gaussian prior, where $p_t(y\mid x_t)$ and the posterior are known: the two scores add up.

# %%
with jax.enable_x64(True):
    frequencies = np.fft.fftfreq(8)
    spectrum = 0.3 / (1 + 40 * (frequencies[:, None] ** 2 + frequencies[None] ** 2))
    prior = jd.priors.Gaussian(spectrum, schedule)
    F = np.kron(*[np.fft.fft(np.eye(8), norm="ortho")] * 2)
    C = (F.conj().T @ np.diag(spectrum.ravel()) @ F).real
    small_blur = jd.operators.Blur(np.ones((3, 3)) / 9, (8, 8))
    A = np.asarray(jax.vmap(small_blur)(jnp.eye(64).reshape(64, 8, 8, 1))).reshape(64, 64).T
    sigma, a = 0.1, schedule.alphas_cumprod[300]
    y, x_t = rng.standard_normal((2, 64))

    gain = C @ A.T @ np.linalg.inv(A @ C @ A.T + sigma**2 * np.eye(64))
    posterior_mean, posterior_C = gain @ y, C - gain @ A @ C
    V = a * posterior_C + (1 - a) * np.eye(64)
    posterior_score = np.linalg.solve(V, np.sqrt(a) * posterior_mean - x_t)

    C_t = C - a * C @ np.linalg.inv(a * C + (1 - a) * np.eye(64)) @ C  # of x_0 given x_t

    def log_likelihood(x):
        r = y - A @ prior(x.reshape(8, 8, 1), 300).ravel()
        return -0.5 * r @ np.linalg.inv(A @ C_t @ A.T + sigma**2 * np.eye(64)) @ r

    prior_score = -np.linalg.solve(a * C + (1 - a) * np.eye(64), x_t)
    total = prior_score + jax.grad(log_likelihood)(x_t)
    print("largest difference of the scores:", float(jnp.abs(total - posterior_score).max()))

# %% [markdown]
# The covariance $AC_tA^T$ of $A x_0$ given $x_t$ is what DPS leaves out and ΠGDM replaces by $r_t^2AA^T$.
#
# ## Question 7. A likelihood that is not Gaussian
#
# A camera that counts photons: $y\sim\text{Poisson}(\lambda Ax)/\lambda$. $-\log p(y\mid x)=\sum_i\lambda(Ax)_i-\lambda y_i\log(Ax)_i$ + const, whose
# gradient in $Ax$ is that of a *weighted* norm, $\tfrac12\sum_i w_i\,((Ax)_i-y_i)^2$ with $w_i=\lambda/(Ax)_i$ held fixed: bright pixels count less.
# `jd.noise.Poisson` knows it: it draws the counts, and its residual has these weights, scaled to a mean square of 1, which leaves ζ
# what it was.

# %%
noise = jd.noise.Poisson(100)  # the brightest pixel's mean count
y_poisson = noise.draw(jax.random.key(4), blur(m.image))
poisson = jd.DPS(denoiser, blur, y_poisson, sigma=noise)
plain = jd.DPS(denoiser, blur, y_poisson)
n = 1 if REDUCED else 4
panels = [("ground truth", m.image), plot.scored("Poisson noise, λ = 100", y_poisson, m.image)]
for name, sampler in (("DPS, weighted norm", poisson), ("DPS, plain norm", plain)):
    draws = np.asarray(jd.sample(sampler, steps, key=key, n=n))
    scores = [metrics.psnr(draw, m.image) for draw in draws]
    print(f"{name}: {np.mean(scores):.2f} dB, mean of {n} draws' PSNR")
    panels.append(plot.scored(name, draws[0], m.image))
plot.comparison(panels)

# %% [markdown]
# On this one image the weights do not pay: four draws have 23.0 dB with them and 23.2 without, at ζ = 1, which was tuned for neither.
#
# ## Question 8. The comparison
#
# Over the whole image set, each image with its own kernel and σ, at T = 20, 50, 100 and 1000 network
# evaluations: `jaxdiff evaluate` in one call. It resumes what it finds in the folder: the stored run
# (`notebooks/evaluation/`, 40 minutes of two CPU cores beside other work) is read, and another MODEL or ROOT starts one of its own.
# The stored run was made with the checkpoint that `training/faces64` starts from; the one bundled now is better by some hundredths of a dB.

# %%
grid = {"samplers": ["dps", "dps-adaptive", "pigdm", "pigdm-paper"], "steps": [20, 50, 100]}
stored = "evaluation" if (MODEL, ROOT) == ("faces64", None) else "evaluation-own"
if REDUCED:  # compiles and runs, with two images
    grid = {"samplers": ["pigdm"], "steps": [2]}
    dataset = data.Dataset(dict(list(dataset.images.items())[:2]), dataset.kernels)
    stored = tempfile.mkdtemp()
rows = evaluate(dataset, denoiser, model=MODEL, **grid, out=stored)
if not REDUCED:
    long = {"samplers": ["dps", "dps-adaptive", "pigdm"], "steps": [1000]}
    rows += evaluate(dataset, denoiser, model=MODEL, **long, out=stored)
Markdown(markdown(rows))

# %%
plot.evaluations(rows)

# %% [markdown]
# **What the numbers say** (faces64, 8 images, one draw each; standard errors near 1 dB; all samplers
# see the same images). *ΠGDM with the paper's variance is best at 20 evaluations* (27.0 dB, Wiener filter 23.1) and gets worse with
# more (21.5 at 100): its guidance does not shrink with the step, so more steps push harder. *The course's ΠGDM* needs 50 to 100 (25.5, 25.6)
# and loses again at 1000 (24.2). *DPS with a fixed weight* climbs all the way, 15.9 to 24.8, and beats the Wiener filter only at 1000.
# *Adaptive DPS* fails at 20 steps (10.1), where $\beta_t$ of a step and with it the weight are large, passes fixed DPS
# at 100, and levels off below the Wiener filter (22.8). PSNR is not all: a draw from the true
# posterior has twice the mean squared error of its mean, so PSNR favours samplers that vary too little. With the real CelebA-HQ weights numbers will differ; they could not be had here.
