# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---
# %% [markdown]
# # 5. Blind deblurring
#
# Who has a blurred photograph has no kernel. This notebook asks why the most likely pair of image and kernel is the blurred image and
# no blur at all, why the average over images mends that, and lets a diffusion prior take the average:
# `jd.Blind`, after *Fast Diffusion EM* by the course's authors (Laroche, Almansa and Coupeté, WACV 2024).

# %%
import os

import jax
import jax.numpy as jnp
import numpy as np
from IPython.display import display
from matplotlib.figure import Figure

import jaxdiff as jd
from jaxdiff import data, metrics, plot
from jaxdiff.samplers.kernel_step import moments, simplex_step

REDUCED = bool(os.environ.get("JAXDIFF_REDUCED"))  # set by the tests: fewer steps and images
MODEL = "faces64"  # or a folder that `jaxdiff calibrate` has measured
unet, schedule = jd.load(MODEL)
denoiser, covariance = jd.Denoiser(unet, schedule), jd.SpectralCovariance.load(MODEL)
key, sigma, size = jax.random.key(0), 5 / 255, 17
rng = np.random.default_rng(0)


def kernel_picture(kernel):
    """A kernel as a picture, white its largest value."""
    kernel = np.asarray(kernel)
    return np.repeat(kernel[..., None] / kernel.max(), 3, -1)


# %% [markdown]
# ## Why the most likely kernel is none
#
# Let the image be Gaussian, $x\sim N(0,S)$ with $S$ as photographs have it, about $1/f^2$, and blur it by a Gaussian of 1.5 pixels. Of a
# kernel $k$ of another width there are two questions to ask. How likely is the *best* pair,
# $$\max_x\ \log p(y\mid x,k)+\log p(x)\;=\;-\frac12\sum_f\frac{|Y|^2}{|K|^2S+\sigma^2}+\text{const},$$
# and how likely is the *kernel*, over all images it could have blurred,
# $$\log p(y\mid k)\;=\;-\frac12\sum_f\frac{|Y|^2}{|K|^2S+\sigma^2}+\log\left(|K|^2S+\sigma^2\right).$$
# They differ by a logarithm. It is what a kernel pays for being able to explain much: no blur, $K=1$, lets through every image.

# %% tags=["stable"]
f = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.fftfreq(128)[None])
S = 0.2 / (1 + (40 * f) ** 2)


def response(width):
    """K of a Gaussian of that many pixels."""
    return np.exp(-2 * (np.pi * width * f) ** 2)


white = np.fft.fft2(rng.standard_normal((128, 128)), norm="ortho")
noise = np.fft.fft2(sigma * rng.standard_normal((128, 128)), norm="ortho")
Y = response(1.5) * np.sqrt(S) * white + noise
widths = np.linspace(0, 3, 61)
best, marginal = [], []
for width in widths:
    explained = response(width) ** 2 * S + sigma**2
    best.append(-0.5 * np.sum(np.abs(Y) ** 2 / explained))
    marginal.append(best[-1] - 0.5 * np.sum(np.log(explained)))
print(f"the best pair: a width of {widths[np.argmax(best)]:.2f} pixels")
print(f"the kernel over all images: {widths[np.argmax(marginal)]:.2f}; the truth: 1.50")
assert widths[np.argmax(best)] == 0 and abs(widths[np.argmax(marginal)] - 1.5) < 0.1

# %%
figure = Figure((7, 2.8), layout="constrained")
for axis, values, name in zip(
    figure.subplots(1, 2), (best, marginal), ("best pair", "kernel alone")
):
    axis.plot(widths, np.array(values) - np.max(values))
    axis.axvline(1.5, color="k", lw=3, alpha=0.2)
    axis.set_title(f"log-likelihood of the {name}")
    axis.set_xlabel("width of the kernel, pixels")
    axis.set_ylim(-600, 30)
display(figure)

# %% [markdown]
# ## Expectation and maximisation
#
# The sum over all images cannot be had for a diffusion prior, but it need not be. Of any $k'$ at hand,
# $$k\;\leftarrow\;\arg\min_k\ \mathbb E_{x\sim p(x\mid y,k')}\lVert k*x-y\rVert^2$$
# never lowers $p(y\mid k)$ (Dempster, Laird and Rubin, 1977). Per frequency it needs two averages and no image,
# $\mathbb E|X|^2$ and $\mathbb E\bar X\,Y$: the correlations of the image with itself and with $y$. **The variance counts.**
# $\mathbb E|X|^2=|\mathbb EX|^2+\mathrm{Var}X$, and without the second term the image that the old kernel made is taken for the truth,
# with all its mistakes; that is the best pair again.
#
# The image being known, least squares over kernels that are not negative and sum to one find it:

# %% tags=["stable"]
face = next(iter(data.faces().values()))
kernel = np.asarray(data.motion_kernel(size, seed=0))
blur = jd.operators.Blur(kernel, face.shape[:2])
y = np.float32(blur(face) + sigma * rng.standard_normal(face.shape))


def similarity(found):
    """The largest normalised cross-correlation with the true kernel, over shifts."""
    a, b = (np.fft.fft2(k / np.linalg.norm(k), (64, 64)) for k in (np.asarray(found), kernel))
    return float(np.fft.ifft2(a * b.conj()).real.max())


guess = jnp.asarray(jd.operators.UnknownBlur(size).guess, jnp.float32)
power, cross = moments(jnp.asarray(face, jnp.float32), jnp.asarray(y))
known = simplex_step(power, cross, guess, 1e-4, iterations=500)
print(
    f"similarity to the true kernel: {similarity(known):.3f}; of the guess: {similarity(guess):.3f}"
)

# %%
panels = [("the kernel", kernel), ("a guess", guess), ("of the true image", known)]
plot.comparison([("blurred", y), *((name, kernel_picture(k)) for name, k in panels)])

# %% [markdown]
# ## Along one trajectory
#
# `jd.Blind` takes one expectation and one maximisation at each noise level. The posterior of $x_0$ given $x_t$, $y$ and $k$ is the spectral
# sampler's of notebook 4: a Gaussian, whose two averages are closed forms where its covariance is one number a frequency, and are
# taken of a draw where, as here, it follows the contrast; a few $x_t$, the particles,
# average over what a Gaussian cannot be. While there is much noise, only the coarse part of the image is decided, and only the coarse
# part of the kernel is fitted: the trajectory goes from coarse to fine by itself.
#
# Two things keep it from being stuck with its first mistakes. The noise of the next level is all new, so that an image is not held to what an
# earlier kernel made of it; and while there is much of it, $y$ is trusted a little less than $\sigma$ says.

# %%
sampler = jd.Blind(denoiser, jd.operators.UnknownBlur(size), y, sigma, covariance)
T = 6 if REDUCED else 124
image, kernels = jd.sample(sampler, sampler.steps(T), key=key, keep=lambda x, info: info["kernel"])
shown = np.unique(np.linspace(0, T - 1, 9).astype(int))
plot.comparison(
    [
        (f"level {i + 1}\n{similarity(kernels[i, 0]):.2f}", kernel_picture(kernels[i, 0]))
        for i in shown
    ]
    + [("the kernel\n ", kernel_picture(kernel))]
)

# %% [markdown]
# Under each kernel its similarity to the true one. The same trajectory without the variance, a point for an image (`draw=False`):

# %%
point = jd.Blind(denoiser, jd.operators.UnknownBlur(size), y, sigma, covariance, draw=False)
_, others = jd.sample(point, point.steps(T), key=key, keep=lambda x, info: info["kernel"])
print(
    f"similarity: {similarity(kernels[-1, 0]):.3f} with the variance, {similarity(others[-1, 0]):.3f} without"
)
assert REDUCED or similarity(kernels[-1, 0]) > similarity(others[-1, 0]) + 0.1
plot.comparison(
    [
        ("with the variance", kernel_picture(kernels[-1, 0])),
        ("without", kernel_picture(others[-1, 0])),
    ]
)

# %% [markdown]
# ## How sure it is
#
# In one line; each draw has a kernel of its own, so the deviation holds what is not known of it. The shift of an image against
# its kernel cannot be known: both are moved so that the kernel's centre of mass is its middle, and PSNR is the best over shifts of a few pixels.

# %%
n = 2 if REDUCED else 6
looked_for = jd.operators.UnknownBlur(size)
found = jd.restore(y, looked_for, sigma, prior="faces64", n=n, steps=T if REDUCED else None)
given = jd.restore(y, blur, sigma, prior="faces64", n=n, steps=2 if REDUCED else None)


draws, mean = np.asarray(found.draws), np.asarray(found.mean)
shifts = [(i, j) for i in range(-3, 4) for j in range(-3, 4)]
best = max(shifts, key=lambda shift: metrics.psnr(np.roll(mean, shift, (0, 1)), face))
draws, mean = np.roll(draws, best, (1, 2)), np.roll(mean, best, (0, 1))
print(f"mean of the draws, kernel found: {metrics.psnr(mean, face):.2f} dB, shifted by {best}")
print(f"kernel given: {metrics.psnr(np.asarray(given.mean), face):.2f} dB")
plot.posterior(draws, face, before=[("blurred", y), ("kernel given", np.asarray(given.mean))])

# %%
mean, deviation = found.kernels.mean(0), found.kernels.std(0, ddof=1)
plot.comparison(
    [
        ("kernel found", kernel_picture(mean)),
        ("its deviation", kernel_picture(deviation)),
        ("the kernel", kernel_picture(kernel)),
    ]
)

# %% [markdown]
# A photograph's blur is not circular: `jd.operators.Crop(8) @ jd.operators.UnknownBlur(17)` says that light from beyond the border came in, and
# `jaxdiff restore photo.jpg --kernel unknown:17` does all of it, the noise level included.
