"""Blind: the kernel and the image, each from draws of the other."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.noise import Gaussian
from jaxdiff.observation import first
from jaxdiff.operators.unknown_blur import separated, unknown
from jaxdiff.samplers.base import Draws, as_count, as_scale, move
from jaxdiff.samplers.ddpm import transition
from jaxdiff.samplers.kernel_step import centred, moments, simplex_step
from jaxdiff.samplers.spectral import SpectralPosterior
from jaxdiff.schedules import Steps
from jaxdiff.schedules.exploding import between
from jaxdiff.util.arrays import Number
from jaxdiff.util.platform import map_samples
from jaxdiff.util.pytree import field, pytree, replace_leaf, static

START, END = 20.0, 0.05


@pytree
class Blind(SpectralPosterior):
    """Posterior samples given y = k∗x + σ·noise, the kernel k unknown.

    Expectation maximisation along one trajectory. At each level x₀ of each of `particles` x_t has the
    posterior that `SpectralPosterior` gives it under k, with (anneal/2)²·min(σ_t²/α_t², 1) added to σ²
    while k is far off; then k becomes the kernel, ≥ 0 and of sum 1, of the least
    E‖k∗x₀ − y‖² + ridge·E‖x₀‖²·‖k‖²; and x_s = α_s·x₀ + σ_s·z with x₀ drawn. E is a closed form where
    the camera is a filter and the covariance stationary, and of a draw of each particle elsewhere. It is
    what finds a blur: of one most likely image the most likely kernel is none.

    The sample is the first particle, shifted so that the kernel's centre of mass is its middle: k∗x does
    not tell a shift. `keep=` finds the kernel [size, size] as info["kernel"]. `particles` evaluations a
    step; 124 steps are usual.

    Args:
        denoiser, y, sigma, covariance: as of `SpectralPosterior`, with one σ > 0.
        operator: an `UnknownBlur`, or a linear operator after it, as `Crop(8) @ UnknownBlur(17)`.
        particles: P ≥ 1, the leading axis of a sample's noise.
        anneal: ≥ 0, in image units.
        ridge: ≥ 0, a share of the image's power.

    Raises:
        ValueError, TypeError: for an operator, y, sigma or covariance other than these.

    Source: after Fast Diffusion EM, Laroche, Almansa & Coupeté 2024 (arXiv 2309.00287); the spectral
    sampler's posterior is ours, the noise that is new at every level DAPS's (arXiv 2407.01521).

    Example:
        >>> import numpy as np, jaxdiff as jd
        >>> prior = jd.priors.Gaussian(np.full((16, 16), 0.1), jd.Schedule.from_config())
        >>> y = np.random.default_rng(0).random((16, 16, 1))
        >>> sampler = Blind(prior, jd.operators.UnknownBlur(5), y, 10 / 255, prior.covariance)
        >>> jd.sample(sampler, sampler.steps(2), key=jax.random.key(0)).shape
        (1, 16, 16, 1)
    """

    scaled: bool = static(default=False)  # a wrong kernel is no wrong Σ
    particles: int = field(default=2, static=True, converter=as_count("particles"))
    anneal: Number = field(default=0.25, converter=as_scale("anneal"))
    ridge: Number = field(default=1e-4, converter=as_scale("ridge"))
    requires_gaussian = True
    finds_kernels = True
    evaluations = property(lambda self: self.particles)

    @property
    def shape(self):
        return self.particles, *self.denoiser.decode.input_shape(self._image_shape)

    def __post_init__(self):
        self.check_likelihood(self.sigma)
        if unknown(first(self.operator)) is None:
            raise TypeError(
                "operator: Blind takes jd.operators.UnknownBlur, or a linear operator @ it, got "
                f"{first(self.operator).name}"
            )
        super().__post_init__()
        if isinstance(self.noise, Gaussian) and self.noise.per_pixel:
            raise ValueError("sigma: Blind takes one number, not one for each pixel")

    def steps(self, count):
        """Levels whose (σ/α)^(1/7) is evenly spaced, from 20 to 0.05: few where all is noise."""
        levels = between(START, END, np.linspace(0, 1, as_count("steps")(count)), rho=7)
        return self.denoiser.schedule.steps(self.denoiser.schedule.nearest(levels))

    def begin(self, x):
        blur: Any = unknown(first(self.operator))
        return x, jnp.asarray(blur.guess, x.dtype)

    def result(self, state):
        return centred(state[0][0], state[1])[0]

    def step(self, state, c: Steps, draws: Draws):
        x, kernel = state
        # All noise is new at every level, as in DAPS: no image is held to what an earlier kernel made of it.
        c = dataclasses.replace(
            c, x0_coef=c.next.alpha, xt_coef=0 * c.xt_coef, noise_coef=c.next.sigma
        )
        camera: Any = self.operator
        outer, blur = separated(camera, kernel, self._image_shape[:2])
        s2 = jnp.asarray(self.measured.sigma, x.dtype) ** 2
        s2 += (jnp.asarray(self.anneal, x.dtype) / 2) ** 2 * jnp.minimum(c.now.variance, 1)
        given = replace_leaf(
            self, operator=blur if outer is None else outer @ blur, sigma=Gaussian(jnp.sqrt(s2))
        )
        scale = self.denoiser.decode.linear(jnp.ones((), x.dtype))

        def expectation(x, z, key):
            x0, covariance, info = given.conditioned(x, c, Draws(z, key))
            image, y = self.denoiser.decode(x0), jnp.asarray(self.y, x.dtype)
            if outer is not None:  # what nobody measured is as the last kernel makes it
                y = blur(image) + outer.pinv(y - outer(blur(image)))
            if covariance is None:
                return move(x, c, x0, z), moments(image, y), info
            found = moments(image, y, scale**2 * covariance)
            return transition(x, c, x0, covariance, z), found, info

        keys = jax.random.split(draws.require_key(), self.particles)
        x, found, info = map_samples(expectation)(x, draws.z, keys)
        power, cross = (moment.mean(0) for moment in found)
        kernel = simplex_step(power, cross, kernel, jnp.asarray(self.ridge, x.dtype))
        info = jax.tree.map(lambda of_all: of_all[0], info)
        return (x, kernel), info | {"kernel": centred(x[0], kernel)[1]}
