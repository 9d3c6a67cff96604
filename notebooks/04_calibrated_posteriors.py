# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---
# %% [markdown]
# # 4. Calibrated posteriors
#
# A restoration is a guess. Several posterior samples say how much of it is one, if their spread is right:
# where the truth is as far from their mean as they are from one another. Notebook 2's samplers do not have that.
# This one asks why, works out the Gaussian case, where everything is known, and mends it with a
# measured covariance, in ten network evaluations and without a gradient.

# %%
import os

import jax
import numpy as np
from IPython.display import display
from matplotlib.figure import Figure

import jaxdiff as jd
from jaxdiff import data, metrics, plot

REDUCED = bool(os.environ.get("JAXDIFF_REDUCED"))  # set by the tests: fewer steps and images
MODEL = "faces64"  # or a folder that `jaxdiff calibrate` has measured
unet, schedule = jd.load(MODEL)
denoiser = jd.Denoiser(unet, schedule)
key = jax.random.key(0)

# %% [markdown]
# ## A Gaussian prior, exactly
#
# Let $x_0\sim N(0,\Sigma_0)$ be a stationary image: $\Sigma_0$ is diagonal in Fourier space, with eigenvalue $s$ at a
# frequency. Then so is everything else, and one complex number at a time
# $$\hat x_0=\frac{\sqrt{\bar\alpha}\,s}{\bar\alpha s+1-\bar\alpha}\,x_t,\qquad
# \mathrm{Cov}[x_0\mid x_t]=p_t=\frac{s\,(1-\bar\alpha)}{\bar\alpha s+1-\bar\alpha}.$$
# A measurement $y=Kx_0+\sigma n$ of the same frequency conditions it like any Gaussian: with
# $G=p_t/(|K|^2p_t+\sigma^2)$ the mean becomes $\hat x_0+\bar K G\,(y-K\hat x_0)$ and the variance $\sigma^2G$.
# **Draw $x_0$ from that, then $x_{t-1}$ from $q(x_{t-1}\mid x_t,x_0)$**: both are exact, so the whole
# trajectory is, at any number of steps. (Images in [0, 1] put $K/2$ for $K$.)
#
# ΠGDM has $r_t^2$, one number, where $p_t$ belongs, which is another one at every frequency. 1,000 draws of each at 16²
# pixels, against the exact posterior's standard deviation by frequency:

# %%
f = np.fft.fftfreq(16)
spectrum = 0.05 / (1 + 400 * (f[:, None] ** 2 + f[None] ** 2))
prior = jd.priors.Gaussian(spectrum, schedule)
kernel, sigma = data.gaussian_kernel(5, 1.0), 10 / 255
blur = jd.operators.Blur(kernel, (16, 16))
rng = np.random.default_rng(0)
white = np.fft.fft2(rng.standard_normal((16, 16)))
x = (np.fft.ifft2(np.sqrt(spectrum) * white).real[..., None] + 1) / 2
y = np.asarray(blur(x)) + sigma * rng.standard_normal(x.shape)

k = np.fft.fft2(np.fft.ifftshift(blur.kernel)) / 2
exact = np.sqrt(sigma**2 * spectrum / (np.abs(k) ** 2 * spectrum + sigma**2))
samplers = {
    "spectral, 1 step": (jd.SpectralPosterior(prior, blur, y, sigma, prior.covariance), 1),
    "spectral, 5 steps": (jd.SpectralPosterior(prior, blur, y, sigma, prior.covariance), 5),
    "ΠGDM (paper), 20": (jd.PiGDM(prior, blur, y, sigma, variance="paper"), 20),
    "ΠGDM (course), 100": (jd.PiGDM(prior, blur, y, sigma), 20 if REDUCED else 100),
}
radius = np.hypot(f[:, None], f[None])
order = np.argsort(radius.ravel())
figure = Figure((7, 3.6), layout="constrained")
axis = figure.subplots()
axis.plot(radius.ravel()[order], exact.ravel()[order], "k", lw=3, alpha=0.3, label="exact")
for name, (sampler, T) in samplers.items():
    n = 100 if REDUCED else 1000
    steps = schedule.steps(T, "trailing")
    _, states = jd.sample(sampler, steps, key=key, n=n, keep=lambda x, info: x)
    draws = np.asarray(states[-1])[..., 0]
    power = np.abs(np.fft.fft2(draws - draws.mean(0), norm="ortho")) ** 2
    std = np.sqrt(power.sum(0) / (n - 1))
    axis.plot(radius.ravel()[order], std.ravel()[order], ".", ms=3, label=name)
axis.set_title("standard deviation of the posterior, and of samplers' draws")
axis.set_xlabel("spatial frequency, cycles a pixel")
axis.set_ylabel("image in [−1, 1]")
axis.legend(fontsize=8)
display(figure)

# %% [markdown]
# The spectral sampler lies on the exact curve, at one step as at five. Where ΠGDM lies depends on the frequency and on the
# number of steps.
#
# ## What a network's covariance looks like
#
# A network is no Gaussian prior, but the one thing that was needed can be measured: noise images to a level t, denoise
# them, and transform the error $x_0-\hat x_0(x_t)$. By radius and noise level, a matrix over the three colours:
# `jd.SpectralCovariance`, which `jaxdiff calibrate` measured on 256 training photographs in two minutes.

# %%
covariance = jd.SpectralCovariance.load(MODEL)
plot.error_spectra(covariance)

# %% [markdown]
# The error is large at low frequencies and small at high ones, by factors of ten to a hundred: one number $r_t^2$ for all of
# them is too large here and too small there. And the colours err together (right): a variance for each colour would count one
# piece of evidence three times.
#
# **And it is larger at edges than on a cheek.** With $g$ the squared gradient of $\hat x_0$, blurred by a pixel, the variance grows like
# $g^\gamma$, $\gamma\approx0.3$ at the noise levels that matter (third panel: where it is 0, it hardly mattered). So the covariance is
# $M\Sigma M$, with $\Sigma$ the stationary one and $M=\mathrm{diag}(m)$, $m^2\propto g^\gamma$: computed from $\hat x_0$ at every step, for
# nothing. On the left $\hat x_0$ at $t=300$, then the deviation $m$, then the error that was made:

# %%
t, photograph = 300, data.example()
x0 = 2 * photograph - 1
x_t = schedule.add_noise(x0, rng.standard_normal(x0.shape), t).astype("float32")
x0_hat = denoiser(x_t, t)
scale = covariance.at(x_t, schedule.alphas_cumprod[t], x0_hat).scale
error = np.abs(x0 - np.asarray(x0_hat)).mean(-1, keepdims=True)
panels = {"x̂₀": (x0_hat + 1) / 2, "m": scale / scale.max(), "|x₀ − x̂₀|": error / error.max()}
plot.comparison([(name, np.broadcast_to(np.asarray(p), x0.shape)) for name, p in panels.items()])

# %% tags=["stable"]
print(f"x̂₀ at t = 300: {metrics.psnr((np.asarray(x0_hat) + 1) / 2, photograph):.2f} dB")
foretold = float(
    np.sqrt(np.mean(covariance.at(x_t, schedule.alphas_cumprod[t], x0_hat).scale ** 2))
)
print(f"root mean square of m: {foretold:.3f}")

# %% [markdown]
# ## Faces
#
# A photograph that neither the network nor the table has seen; nine draws of each sampler.

# %%
count, n = (1, 2) if REDUCED else (4, 9)
images = np.stack(list(data.faces().values())[:count])
size = denoiser.shape[0]
blur = jd.operators.Blur(data.motion_kernel(17, seed=1), (size, size))
y = np.asarray(blur(images)) + sigma * rng.standard_normal(images.shape)

spectral = jd.SpectralPosterior(denoiser, blur, y, sigma, covariance)
mean_only = jd.SpectralPosterior(denoiser, blur, y, sigma, covariance, draw=False)
pigdm = jd.PiGDM(denoiser, blur, y, sigma, variance="paper")
ten, twenty = (schedule.steps(2 if REDUCED else T) for T in (10, 20))
draws = {
    "spectral, 10 evaluations": jd.sample(spectral, ten, key=key, n=n),
    "spectral without the draw, 10": jd.sample(mean_only, ten, key=key, n=n),
    "ΠGDM (paper), 20 evaluations": jd.sample(pigdm, twenty, key=key, n=n),
}


def report(name, samples):
    """One line of figures; the samples as an array."""
    samples = np.asarray(samples)
    found = metrics.calibration(samples, images)
    one = np.mean([metrics.psnr(s[0], x) for s, x in zip(samples, images)])
    mean = np.mean([metrics.psnr(s.mean(0), x) for s, x in zip(samples, images)])
    ratio, coverage = found["error_over_spread"], found["coverage"]
    print(f"{name:31s} {one:5.2f} dB   {mean:5.2f} dB    {ratio:12.2f}   {coverage:8.3f}")
    return samples


print(f"{'':31s} one draw   mean of {n}   error/spread   coverage")
draws = {name: report(name, samples) for name, samples in draws.items()}
print(f"calibrated draws have an error/spread of 1 and a coverage of {(n - 1) / (n + 1):.3f}")

# %%
plot.posterior(
    draws["spectral, 10 evaluations"][0],
    images[0],
    before=[plot.degraded(blur, y[0], sigma)],
    shown=3,
)

# %%
plot.posterior(
    draws["ΠGDM (paper), 20 evaluations"][0],
    images[0],
    before=[plot.degraded(blur, y[0], sigma)],
    shown=3,
)

# %% [markdown]
# *Error/spread* is the root mean squared error of the mean over the draws' own deviation: above 1 the sampler is too sure.
# *Coverage* is how often the truth lies between the least and the largest of the nine draws.
# A single draw from a calibrated posterior is *worse* in PSNR than its mean, by 3 dB if it is exact: that is what uncertainty means,
# and why a sampler that is judged by the PSNR of one draw is rewarded for being too sure. Leaving the draw of $x_0$ out
# (second row) shows it: sharper single pictures, and a spread that says little.
#
# ## Any linear camera
#
# A circular blur and a stationary $\Sigma$ share their eigenvectors, hence the closed form above. For $M\Sigma M$ and for every other linear operator the conditional draw is Matheron's rule,
# $x_0=x_0'+\Sigma A^T(A\Sigma A^T+\sigma^2I)^{-1}(y-Ax_0'-\sigma\varepsilon)$ with $x_0'\sim N(\hat x_0,\Sigma)$, by conjugate
# gradients, which cost FFTs and no network. 70 % of the pixels missing, and a fourth of the resolution:

# %%
mask = jd.operators.Mask(rng.random((size, size)) < 0.3)
coarse = jd.operators.Downsample(4)
for operator in (mask, coarse):
    clean = np.asarray(operator(images[0]))
    y = np.asarray(operator.project(clean + sigma * rng.standard_normal(clean.shape)))
    sampler = jd.SpectralPosterior(denoiser, operator, y, sigma, covariance)
    samples = jd.sample(sampler, ten, key=key, n=n)
    display(plot.posterior(samples, images[0], before=[plot.degraded(operator, y, sigma)], shown=3))

# %% [markdown]
# ## How wrong it is on this image
#
# $\Sigma$ is an average over images, and some are harder. What $\hat x_0$ leaves of the measurement says which:
# $r=y-A\hat x_0\sim\mathcal N(0,\,c\,B\Sigma B^T+b\,\sigma^2I)$, $B=A/2$, with $c=b=1$ on average. At each step of each image the sampler takes the likeliest $c$
# (one step of Fisher's scoring) and goes on with $c\,\Sigma$. $b$ is found along with it and thrown away: it answers for a $\sigma$ that is
# not quite what was said, which would else be taken for a harder image.

# %%
y = np.asarray(blur(images)) + sigma * rng.standard_normal(images.shape)
for name, scaled in (("Σ as measured", False), ("Σ scaled to the image", True)):
    sampler = jd.SpectralPosterior(denoiser, blur, y, sigma, covariance, scaled=scaled)
    report(name, jd.sample(sampler, ten, key=key, n=n))
_, c = jd.sample(sampler, ten, key=key, n=n, keep=lambda x, info: info["scale"])
print("c at half of the steps, by image:", np.round(np.asarray(c).mean(-1)[len(c) // 2], 2))

# %% [markdown]
# ## What the network knows of this image
#
# One number is not much of a covariance. Where $\hat x_0$ is the posterior mean, Tweedie's second formula gives the covariance for *this* one,
# $$\mathrm{Cov}[x_0\mid x_t]=S=\frac{1-\bar\alpha}{\sqrt{\bar\alpha}}\,\frac{\partial\hat x_0}{\partial x_t}:$$
# the network's Jacobian, which ΠGDM's gradient carries and which is what its 100 evaluations buy. A product with it is a gradient through the
# network, as dear as an evaluation or two, so use few. The mean was $\hat x_0+\Sigma B^Tu$ with $u=(B\Sigma B^T+\sigma^2I)^{-1}(y-A\hat x_0)$. Put
# $S=\Sigma+\delta$, keep what is linear in $\delta$, and it moves by
# $$d-\Sigma B^T(B\Sigma B^T+\sigma^2I)^{-1}B\,d,\qquad d=(S-\Sigma)B^Tu:$$
# what $S$ would add, less what the measurement says of it. One product. At high noise the factor $(1-\bar\alpha)/\sqrt{\bar\alpha}$ multiplies the
# network's errors (61 at $t=900$), so this is done where $0.6<\bar\alpha<0.99$ only: 9 steps are ten evaluations, 42 are fifty.

# %%
spectral = jd.SpectralPosterior(denoiser, blur, y, sigma, covariance)
with_jacobian = jd.SpectralPosterior(denoiser, blur, y, sigma, covariance, jacobian=True)
nine, many = (schedule.steps(2 if REDUCED else T) for T in (9, 42))
for name, sampler, steps in (
    ("spectral, 10 evaluations", spectral, ten),
    ("with the Jacobian, 10", with_jacobian, nine),
    ("with the Jacobian, 50", with_jacobian, many),
):
    report(name, jd.sample(sampler, steps, key=key, n=n))

# %% [markdown]
# ## What it does not do
#
# The spread follows the contrast and the residual, and still not all of what makes one photograph harder than another: error/spread is right
# on average and between 0.8 and 1.35 from one face to the next, for a blurred picture says little about its finest detail. The draw around
# the mean keeps $c\,\Sigma$, with the Jacobian too: it would take $S^{1/2}$. Which sampler is best at what price, over more images,
# cameras and noise levels: `python -m benchmarks.posterior`, whose tables are in `benchmarks/posterior-results/`.
