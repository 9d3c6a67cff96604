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
import tempfile
from pathlib import Path
from typing import Any

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
    blur = jd.operators.Blur(m.kernel, (size, size))
    panels += [plot.scored(*plot.degraded(blur, m.y, m.sigma), m.image)]
plot.comparison(panels)

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
few = schedule.steps(20)
results["ΠGDM, paper"] = jd.sample(paper, few, key=key)[0]

# %% tags=["stable"]
print(f"ΠGDM, paper's variance, 20 steps: {metrics.psnr(results['ΠGDM, paper'], m.image):.2f} dB")

# %%
panels = [("ground truth", m.image), plot.scored("degraded", m.y, m.image)]
panels += [plot.scored(name, image, m.image) for name, image in results.items()]
assert metrics.psnr(results["ΠGDM, paper"], m.image) > metrics.psnr(m.y, m.image)
for name, image in results.items():
    psnr, ssim = metrics.psnr(image, m.image), metrics.ssim(np.asarray(image), m.image)
    print(f"{name:14s} {psnr:6.2f} dB   SSIM {ssim:.3f}")
plot.comparison(panels, columns=3)

# %% [markdown]
# These are *draws* from an approximate posterior. Several of them show what the measurement left open:

# %%
draws = jd.sample(paper, few, key=key, n=2 if REDUCED else 8)
plot.posterior(draws, m.image, before=[plot.degraded(blur, m.y, m.sigma)], shown=3)

# %% [markdown]
# ## Question 5
#
# > *Complete the loop of DPS: compute the gradient of* $\lVert A\hat x_0(x_t)-y\rVert_2$ *with respect to* $x_t$*.*
#
# One line: `jax.grad(misfit, has_aux=True)(x)`. By the chain rule it is
# $J_{\hat x_0}^T\,c'\,A^T\frac{A c(\hat x_0)-y}{\lVert A c(\hat x_0)-y\rVert}$, with c the map to [0, 1] that clips, $c'=\tfrac12$ where nothing is
# clipped and 0 where something is, and $J_{\hat x_0}$ the network's Jacobian, which is multiplied and never formed. The whole loop, and
# that of ΠGDM:


# %%
def denoised(unet, x, c):
    eps = unet(x[None], c.t)[0]
    return (x - jnp.sqrt(1 - c.alphas_cumprod) * eps) / jnp.sqrt(c.alphas_cumprod)


def clean_output(x):
    return (jnp.clip(x, -1, 1) + 1) / 2


def ddpm_step(x, x0_hat, z, c):  # of notebook 1
    a, a_prev = c.alphas_cumprod, c.alphas_cumprod_prev
    mean = jnp.sqrt(a_prev) * c.betas / (1 - a) * jnp.clip(x0_hat, -1, 1)
    mean += jnp.sqrt(c.alphas) * (1 - a_prev) / (1 - a) * x
    return mean + c.sigma * z


@jax.jit
def dps_step(unet, blur, y, sigma, x, z, c):
    def misfit(x):
        x0_hat = denoised(unet, x, c)
        return jnp.linalg.norm(blur(clean_output(x0_hat)) - y), x0_hat

    g, x0_hat = jax.grad(misfit, has_aux=True)(x)  # the answer
    return ddpm_step(x, x0_hat, z, c) - 1.0 * g


@jax.jit
def pigdm_step(unet, blur, y, sigma, x, z, c):
    def image(x):
        x0_hat = denoised(unet, x, c)
        return clean_output(x0_hat), x0_hat

    x0, vjp, x0_hat = jax.vjp(image, x, has_aux=True)
    v = c.posterior_variance
    r2 = v / (1 + v)
    K = jnp.fft.fft2(jnp.fft.ifftshift(blur.kernel))[..., None]
    residual = jnp.fft.fft2(y - blur(x0), axes=(0, 1))
    d = jnp.fft.ifft2(K.conj() / (r2 * jnp.abs(K) ** 2 + sigma**2) * residual, axes=(0, 1)).real
    (g,) = vjp(d)
    return ddpm_step(x, x0_hat, z, c) + r2 * g / jnp.sqrt(1 + v)


def loop(step, unet, noise, steps):
    x = noise[0, 0]
    for i in range(len(noise) - 1):
        c = jax.tree.map(lambda v, i=i: v[i], steps)
        x = step(unet, blur, m.y.astype(x.dtype), m.sigma, x, noise[i + 1, 0], c)
    return x


# %% [markdown]
# Equal to the library's compiled loops with the same noise, in float64, where nothing hides behind rounding:

# %%
with jax.enable_x64(True):
    few = schedule.steps(3 if REDUCED else 10)
    noise = np.random.default_rng(0).standard_normal((len(few.t) + 1, 1, *denoiser.shape))
    denoiser64 = jd.Denoiser(*jd.load(MODEL, dtype=jnp.float64))
    library = {
        dps_step: jd.DPS(denoiser64, blur, m.y),
        pigdm_step: jd.PiGDM(denoiser64, blur, m.y, m.sigma),
    }
    for step, sampler in library.items():
        ours = loop(step, denoiser64.network, noise, few)
        _, states = jd.sample(sampler, few, noise=noise, keep=lambda x, info: x)
        difference = float(jnp.abs(ours - states[-1, 0]).max())
        print(f"{type(sampler).__name__}: largest difference at the end {difference:.1e}")
        assert difference < 1e-8

# %% [markdown]
# And the line itself against central differences, along a random direction:

# %%
with jax.enable_x64(True):

    @jax.jit
    def f(unet, x, c):  # what the compiled function needs comes in as an argument
        return jnp.linalg.norm(blur(clean_output(denoised(unet, x, c))) - m.y)

    c = jax.tree.map(lambda v: v[60], schedule.steps(100))  # t = 390
    rng = np.random.default_rng(0)
    x_t = schedule.add_noise(2 * m.image - 1, rng.standard_normal(m.image.shape), int(c.t))
    x_t = np.asarray(x_t, np.float64)
    gradient = jax.jit(jax.grad(f, argnums=1))(denoiser64.network, x_t, c)
    d = rng.standard_normal(x_t.shape)
    exact = float((gradient * d).sum())
    for h in (1e-3, 1e-4, 1e-5):
        above, below = (float(f(denoiser64.network, x_t + s * h * d, c)) for s in (1, -1))
        numeric = (above - below) / (2 * h)
        print(f"h = {h:.0e}: {numeric:.10f} against {exact:.10f}")
    assert abs(numeric - exact) < 1e-6 * abs(exact)

# %% [markdown]
# ## Question 6
#
# > *Why is* $\eta_t=\beta_t/\sqrt{\alpha_t}$ *the natural weight of the gradient (adaptive DPS)?*
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
    difference = float(jnp.abs(total - posterior_score).max())
print(f"largest difference of the scores: {difference:.1e}")
assert difference < 1e-10

# %% [markdown]
# The covariance $AC_tA^T$ of $A x_0$ given $x_t$ is what DPS leaves out and ΠGDM replaces by $r_t^2AA^T$.
#
# ## Question 7
#
# > *Can DPS be used with a likelihood that is not Gaussian?*
#
# Yes: it asks of $\log p(y\mid x)$ a gradient alone. A camera that counts photons has $y\sim\text{Poisson}(\lambda Ax)/\lambda$,
# $$-\log p(y\mid x)=\sum_i\lambda(Ax)_i-\lambda y_i\log(Ax)_i+\text{const},\qquad \mathrm{Var}[y_i]=(Ax)_i/\lambda:$$
# bright pixels are noisier. `jd.noise.Poisson` is that law; where DPS has $y-A\hat x_0$, it puts the residual that has one
# deviation everywhere, $(y-A\hat x_0)/\sqrt{A\hat x_0}$. First, that it is the law, and that it has one deviation:

# %%
peak = 50  # photons of a pixel that is 1
poisson = jd.noise.Poisson(peak)
with jax.enable_x64(True):
    rate, counts = jnp.linspace(0.05, 1, 400), np.arange(600)
    log_p = jax.vmap(lambda k: poisson.log_prob(jnp.array([k / peak]), jnp.array([0.7])))(counts)
    assert abs(float(jnp.exp(log_p).sum()) - 1) < 1e-9  # a law: it sums to 1 over all counts
    mean = float((jnp.exp(log_p) * counts).sum()) / peak
    print(f"mean of the law: {mean:.6f}, of the camera: 0.7")
    assert abs(mean - 0.7) < 1e-9
    y = poisson.draw(jax.random.key(0), jnp.broadcast_to(rate, (4000, 400)))
    deviation = np.asarray(poisson.residual(y, jnp.broadcast_to(rate, y.shape)).std(0))
    print(f"deviation of the residual: {deviation.min():.4f} to {deviation.max():.4f}")
    assert deviation.max() < 1.15 * deviation.min()

# %% [markdown]
# It pays where a picture is bright here and dark there. A face lit from the left, the light being a part of the camera: $A$ is a blur, then
# a weight from 1 down to 0.03. A plain norm listens to the noise of the bright side; each sampler at the best of three
# scales, two draws of each:

# %%
face = data.faces()["7"]
light = np.linspace(1, 0.03, size)[None, :, None] * np.ones((size, size, 1))


@jd.pytree
class Lamp(jd.operators.Linear):
    """An image times the light that falls on it."""

    light: Any

    def __call__(self, x):
        return x * jnp.asarray(self.light, x.dtype)


camera = Lamp(light) @ jd.operators.Blur(data.gaussian_kernel(7, 1.2), (size, size))
y = np.asarray(poisson.draw(jax.random.key(1), camera(jnp.asarray(face))))
panels = [("ground truth", face), (f"{peak} photons at most", y)]
best = {}
for name, noise in (("plain norm", None), ("Poisson", poisson)):
    for scale in (16.0,) if REDUCED else (8.0, 16.0, 32.0):
        sampler = jd.DPS(denoiser, camera, y, scale=scale, sigma=noise)
        draws = np.asarray(jd.sample(sampler, steps, key=key, n=1 if REDUCED else 2))
        found = metrics.psnr(draws.mean(0), face), scale, draws
        best[name] = max(best.get(name, found), found, key=lambda f: f[0])
    score, scale, draws = best[name]
    dark = metrics.psnr(draws.mean(0)[:, size // 2 :], face[:, size // 2 :])
    print(f"DPS, {name}: {score:.2f} dB (the dark half {dark:.2f} dB) at ζ = {scale:.0f}")
    panels.append(plot.scored(f"DPS, {name}", draws.mean(0), face))
assert REDUCED or best["Poisson"][0] > best["plain norm"][0]
plot.comparison(panels, columns=4)

# %% [markdown]
# ## Question 8
#
# > *Compare the methods on the whole data set, for several numbers of steps.*
#
# Over the whole image set, each image with its own kernel and σ, at T = 20 and 50 network
# evaluations: `jaxdiff evaluate` in one call. It goes on with what it finds: the stored run, `notebooks/evaluation/`, is
# read where it is there, and made anew elsewhere: a minute on a GPU, ten on two cores. `"steps": [20, 50, 100, 1000]` adds
# what the course asks for beside; these cost ten times as much.

# %%
grid = {"samplers": ["dps", "dps-adaptive", "pigdm", "pigdm-paper"], "steps": [20, 50]}
places = (Path("evaluation"), Path("notebooks/evaluation"))
ours = next((place for place in places if place.is_dir()), Path("evaluation"))
stored = ours if (MODEL, ROOT) == ("faces64", None) else Path("evaluation-own")
if REDUCED:  # compiles and runs, with two images
    grid = {"samplers": ["pigdm"], "steps": [2]}
    dataset = data.Dataset(dict(list(dataset.images.items())[:2]), dataset.kernels)
    stored = tempfile.mkdtemp()
rows = evaluate(dataset, denoiser, model=MODEL, **grid, out=stored)
assert all(np.isfinite(row["psnr"]) for row in rows)
Markdown(markdown(rows))

# %%
plot.evaluations(rows)

# %% [markdown]
# **What the numbers say** (faces64, 8 images, one draw each; standard errors near 1 dB; all samplers
# see the same images). *ΠGDM with the paper's variance is best at 20 evaluations* (27.1 dB, Wiener filter 23.1) and gets worse with
# more (25.3 at 50): its guidance does not shrink with the step, so more steps push harder. *The course's ΠGDM* needs more of them
# (18.8, then 25.5). *DPS with a fixed weight* climbs, 15.7 to 19.3, and is still below the Wiener filter at 50.
# *Adaptive DPS* fails at 20 steps (10.3), where $\beta_t$ of a step and with it the weight are large, and has 17.5 at 50. An earlier run
# with 100 and 1000 evaluations is in the site's results. PSNR is not all: a draw from the true
# posterior has twice the mean squared error of its mean, so PSNR favours samplers that vary too little. With the real CelebA-HQ weights numbers will differ; they could not be had here.
