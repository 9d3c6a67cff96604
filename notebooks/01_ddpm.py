# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---
# %% [markdown]
# # 1. DDPM: the scheduler, the network, the score
#
# The first part of the course's notebook (*Diffusion models for inverse problems*, MVA) in JAX: questions 1 to 4, each
# in our words, answered, and checked by a number.

# %%
import os

import jax
import jax.numpy as jnp
import numpy as np

import jaxdiff as jd
from jaxdiff import data, metrics, plot

REDUCED = bool(os.environ.get("JAXDIFF_REDUCED"))  # set by the tests: fewer steps and images
print("jax", jax.__version__, "sees", jax.devices()[0].platform, jax.devices())

# %% [markdown]
# The prior: the bundled faces at 64×64. For the course's own network, name
# `"google/ddpm-ema-celebahq-256"` instead (455 MB, and a GPU is advisable).

# %%
MODEL = "faces64"
unet, schedule = jd.load(MODEL)
denoiser = jd.Denoiser(unet, schedule)
parameters = sum(p.size for p in jax.tree.leaves(unet))
print(f"{MODEL}: {parameters:,} parameters, images {denoiser.shape}")

# %% [markdown]
# ## The theory in short
#
# Forward: noise is added to an image $x_0\in[-1,1]$ in $T=1000$ small steps,
# $x_t=\sqrt{\alpha_t}\,x_{t-1}+\sqrt{\beta_t}\,z$, $\alpha_t=1-\beta_t$; at once,
# $$x_t=\sqrt{\bar\alpha_t}\,x_0+\sqrt{1-\bar\alpha_t}\,\varepsilon,\qquad
# \bar\alpha_t=\prod_{s\le t}\alpha_s,\quad \varepsilon\sim N(0,I).$$
# Training: a network $\varepsilon_\theta(x_t,t)$ guesses $\varepsilon$ by least squares. Backward: with the guess
# $\hat x_0=(x_t-\sqrt{1-\bar\alpha_t}\,\varepsilon_\theta)/\sqrt{\bar\alpha_t}$, clipped to $[-1,1]$, draw
# $x_{t-1}$ from $q(x_{t-1}\mid x_t,x_0=\hat x_0)$, a Gaussian.
#
# ## Sampling in one line

# %%
key = jax.random.key(0)
T = 10 if REDUCED else 100
faces = jd.sample(jd.DDPM(denoiser), schedule.steps(T), key=key, n=2 if REDUCED else 10)
plot.comparison([(f"sample {i + 1}", face) for i, face in enumerate(faces)])

# %% [markdown]
# Some have casts of colour: faces64 is small and was trained for a few hours on two cores, and what colour a picture has as a whole is
# decided at the highest noise, where it learned least. A restoration takes that from the measurement.
#
# ## What is behind it: the network and the schedule
#
# `unet.config` holds the fields of diffusers' config under the same names, `schedule` those of its
# `DDPMScheduler`, with tables in float64.

# %%
c = unet.config
print("block_out_channels", c.block_out_channels)
print("down_block_types", c.down_block_types)
noise = jax.random.normal(key, (1, *denoiser.shape))
eps = jax.jit(lambda unet, x, t: unet(x, t))(unet, noise, 500)
print("eps:", eps.shape, f"std {float(eps.std()):.3f}")
print(schedule.config.beta_schedule, schedule.config.beta_start, "→", schedule.config.beta_end)

# %% [markdown]
# Fewer steps: `schedule.steps(100)` takes every tenth timestep, and $\alpha$, $\beta$ of a step become those of
# ten. $\sigma_t$ is the standard deviation of the noise a step adds, $\eta_t=\beta_t/\sqrt{\alpha_t}$ the weight that
# the second notebook derives.

# %%
for T in (1000, 100):
    s = schedule.steps(T)
    print(f"T = {T}\n   t        β        α        ᾱ        η        σ")
    for i in range(0, T, T // 5):
        eta = s.betas[i] / np.sqrt(s.alphas[i])
        row = (s.betas[i], s.alphas[i], s.alphas_cumprod[i], eta, s.sigma[i])
        print(f"{s.t[i]:4d}", *(f"{v:8.5f}" for v in row))

# %%
plot.schedule(schedule, (1000, 100))

# %% [markdown]
# ## DDPM in detail
#
# The loop written out, one network evaluation a step, against the library's compiled one with the same
# noise (`noise[0]` is $x_T$, `noise[i + 1]` the draw of step $i$).

# %%
T = 10 if REDUCED else 100
steps = schedule.steps(T)
noise = np.random.default_rng(0).standard_normal((T + 1, 1, *denoiser.shape)).astype("f")
network = jax.jit(lambda unet, x, t: unet(x[None], t)[0])

x = noise[0, 0]
for i in range(T):
    a, a_prev = steps.alphas_cumprod[i], steps.alphas_cumprod_prev[i]
    eps = network(unet, x, steps.t[i])
    x0_hat = jnp.clip((x - np.sqrt(1 - a) * eps) / np.sqrt(a), -1, 1)
    mean = np.sqrt(a_prev) * steps.betas[i] / (1 - a) * x0_hat
    mean += np.sqrt(steps.alphas[i]) * (1 - a_prev) / (1 - a) * x
    x = mean + steps.sigma[i] * noise[i + 1, 0]

image, states = jd.sample(jd.DDPM(denoiser), steps, noise=noise, keep=lambda x, info: x)
difference = float(jnp.abs(x - states[-1, 0]).max())
print(f"largest difference at the end: {difference:.1e}")
assert difference < 1e-3

# %% [markdown]
# Noise becomes a face: the state $x_t$, and what the network believes, $\hat x_0$. Coarse things are decided
# early, details late.

# %%
plot.strip((states[:, 0] + 1) / 2, steps.t, 8)

# %%
_, x0 = jd.sample(jd.DDPM(denoiser), steps, noise=noise, keep=lambda x, info: info["x0_hat"])
plot.strip((x0[:, 0] + 1) / 2, steps.t, 8)

# %% [markdown]
# ## 1000 steps against 100, 50 and 10
#
# The same key, so the same $x_T$: four samples in a row for each T. The network costs the same in every
# step, so time is proportional to T.

# %%
panels = []
for T in (10, 5) if REDUCED else (1000, 100, 50, 10):
    images = jd.sample(jd.DDPM(denoiser), schedule.steps(T), key=key, n=2 if REDUCED else 4)
    panels += [(f"T = {T}", image) for image in images]
plot.comparison(panels, columns=2 if REDUCED else 4)

# %% [markdown]
# The fewer the steps, the worse the Gaussian approximation of $p(x_{t-1}\mid x_t)$, whose variance in each step is
# that of a *known* $x_0$: at 10 steps the faces are washed out. 100 steps look much like 1000.
#
# ## Question 1
#
# > *Tweedie's formula: show that the posterior mean is a step along the score,*
# > $E[x_0\mid x_t]=\big(x_t+(1-\bar\alpha_t)\nabla\log p_t(x_t)\big)/\sqrt{\bar\alpha_t}$.
#
# $p_t(x_t)=\int p(x_0)\,N(x_t;\sqrt{\bar\alpha_t}x_0,(1-\bar\alpha_t)I)\,dx_0$. Differentiate under the integral:
# $$\nabla p_t(x_t)=\int p(x_0)\,N(\cdot)\,\frac{\sqrt{\bar\alpha_t}x_0-x_t}{1-\bar\alpha_t}\,dx_0
# \;\Longrightarrow\;\nabla\log p_t(x_t)=\frac{\sqrt{\bar\alpha_t}\,E[x_0\mid x_t]-x_t}{1-\bar\alpha_t},$$
# $$\boxed{E[x_0\mid x_t]=\frac{x_t+(1-\bar\alpha_t)\nabla\log p_t(x_t)}{\sqrt{\bar\alpha_t}}}$$
#
# Checked where all is known: a Gaussian prior, whose exact denoiser is `jd.priors.Gaussian`, against the
# gradient of its log-density by `jax.grad`.

# %%
with jax.enable_x64(True):
    f = np.fft.fftfreq(8)
    spectrum = 0.3 / (1 + 40 * (f[:, None] ** 2 + f[None] ** 2))
    gaussian = jd.priors.Gaussian(spectrum, schedule)
    F = np.kron(*[np.fft.fft(np.eye(8), norm="ortho")] * 2)
    C = (F.conj().T @ np.diag(spectrum.ravel()) @ F).real  # the covariance of x_0
    t = 300
    a = schedule.alphas_cumprod[t]
    x_t = np.random.default_rng(1).standard_normal((8, 8, 1))

    def log_density(x):
        return -0.5 * x.ravel() @ np.linalg.inv(a * C + (1 - a) * np.eye(64)) @ x.ravel()

    score = jax.grad(log_density)(x_t)
    tweedie = (x_t + (1 - a) * score) / np.sqrt(a)
    difference = float(jnp.abs(tweedie - gaussian(x_t, t)).max())
print(f"Tweedie − E[x_0 | x_t]: {difference:.1e}")
assert difference < 1e-12

# %% [markdown]
# ## Question 2
#
# > *From the forward process, write* $x_0$ *in terms of* $x_t$ *and the noise* $\varepsilon$*; what does the
# > network's guess of* $\varepsilon$ *say of* $x_0$*?*
#
# $x_t=\sqrt{\bar\alpha_t}\,x_0+\sqrt{1-\bar\alpha_t}\,\varepsilon$, so
# $$\boxed{x_0=\frac{x_t-\sqrt{1-\bar\alpha_t}\,\varepsilon}{\sqrt{\bar\alpha_t}}},\qquad
# \hat x_0=\frac{x_t-\sqrt{1-\bar\alpha_t}\,\varepsilon_\theta(x_t,t)}{\sqrt{\bar\alpha_t}}.$$
# With the true $\varepsilon$ the photograph comes back to rounding; with the network's, what `denoiser(x_t, t)`
# returns, clipped to $[-1,1]$. On a photograph that the network has not seen: at small t it denoises, at large t it invents.

# %% tags=["stable"]
size = denoiser.shape[0]
photo = data.course_dataset(size=size)[1].image
draw = np.random.default_rng(2).standard_normal(photo.shape)
noisy, denoised = [], []
for t in (50, 200, 400, 700):
    a = schedule.alphas_cumprod[t]
    x_t = schedule.add_noise(2 * photo - 1, draw, t)
    assert np.abs((x_t - np.sqrt(1 - a) * draw) / np.sqrt(a) - (2 * photo - 1)).max() < 1e-5
    x_t = np.asarray(x_t, "f")
    x0_hat = jnp.clip((x_t - np.sqrt(1 - a) * network(unet, x_t, t)) / np.sqrt(a), -1, 1)
    assert jnp.abs(x0_hat - denoiser(x_t, t)).max() < 1e-4
    noisy.append((f"x_t, t = {t}", (x_t + 1) / 2))
    denoised.append(plot.scored("x̂₀", (x0_hat + 1) / 2, photo))
    print(f"t = {t}: x̂₀ has {metrics.psnr((x0_hat + 1) / 2, photo):.2f} dB")
plot.comparison(noisy + denoised, columns=4)

# %% [markdown]
# ## Question 3
#
# > *Show that the network gives the score:* $\nabla\log p_t(x_t)=-\varepsilon_\theta(x_t,t)/\sqrt{1-\bar\alpha_t}$.
#
# The conditional mean of question 2's formula, in question 1's:
# $$\sqrt{\bar\alpha_t}\,E[x_0\mid x_t]=x_t-\sqrt{1-\bar\alpha_t}\,E[\varepsilon\mid x_t]
# \;\Longrightarrow\;\boxed{\nabla\log p_t(x_t)=-\frac{E[\varepsilon\mid x_t]}{\sqrt{1-\bar\alpha_t}}}$$
# and least squares make the network that conditional mean, $\varepsilon_\theta\approx E[\varepsilon\mid x_t]$. Checked on the
# Gaussian by another road, the formula for conditional Gaussians: $\mathrm{cov}(\varepsilon,x_t)=\sqrt{1-\bar\alpha_t}\,I$.

# %%
with jax.enable_x64(True):
    t = 300
    a = schedule.alphas_cumprod[t]
    x_t = np.random.default_rng(1).standard_normal((8, 8, 1))
    mean_eps = np.sqrt(1 - a) * np.linalg.solve(a * C + (1 - a) * np.eye(64), x_t.ravel())
    difference = float(jnp.abs(score.ravel() + mean_eps / np.sqrt(1 - a)).max())
print(f"score + E[ε | x_t]/√(1−ᾱ): {difference:.1e}")
assert difference < 1e-12

# %% [markdown]
# ## Question 4
#
# > *Write the DDPM update in terms of the score.*
#
# The mean of $q(x_{t-1}\mid x_t,\hat x_0)$ with $\hat x_0$ from Tweedie. The coefficient of $x_t$:
# $$\frac{\beta_t}{(1-\bar\alpha_t)\sqrt{\alpha_t}}+\frac{\sqrt{\alpha_t}(1-\bar\alpha_{t-1})}{1-\bar\alpha_t}
# =\frac{\beta_t+\alpha_t-\bar\alpha_t}{(1-\bar\alpha_t)\sqrt{\alpha_t}}=\frac1{\sqrt{\alpha_t}},$$
# that of the score: $\beta_t/\sqrt{\alpha_t}$. So
# $$\boxed{x_{t-1}=\frac{1}{\sqrt{\alpha_t}}\big(x_t+\beta_t\nabla\log p_t(x_t)\big)+\sigma_t z}$$
# as long as $\hat x_0$ is not clipped. Against the library's step, with the network and clipping off, in float64:

# %%
with jax.enable_x64(True):
    unet64, _ = jd.load(MODEL, dtype=jnp.float64)
    unclipped = jd.Schedule.from_config(schedule.to_config() | {"clip_sample": False})
    ddpm = jd.DDPM(jd.Denoiser(unet64, unclipped))
    steps = unclipped.steps(100)
    step = jax.jit(lambda sampler, x, c, z: sampler.step(x, c, jd.samplers.Draws(z))[0])
    x_t, z = np.random.default_rng(3).standard_normal((2, *denoiser.shape))
    for i in (5, 50, 95):
        c = jax.tree.map(lambda v, i=i: v[i], steps)
        score = -network(unet64, x_t, c.t) / np.sqrt(1 - c.alphas_cumprod)
        update = (x_t + c.betas * score) / np.sqrt(c.alphas) + c.sigma * z
        difference = jnp.abs(step(ddpm, x_t, c, z) - update)
        print(f"t = {c.t}: largest difference {float(difference.max()):.1e}")
        assert difference.max() < 1e-10

# %% [markdown]
# Equal to rounding. The next notebook replaces this score by that of the posterior,
# $\nabla\log p_t(x_t\mid y)$, and restores photographs.
