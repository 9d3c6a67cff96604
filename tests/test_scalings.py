"""A method is the same at every scaling of the states: x_t multiplied by any c_t."""

import jax
import numpy as np
import pytest

import jaxdiff as jd
from jaxdiff.schedules import Level, Scalings
from jaxdiff.util.pytree import pytree

VP = jd.Schedule.from_config()


@pytree
class Scaled(jd.Schedule):
    """DDPM's levels, c_t times as large."""

    @classmethod
    def _from_config(cls, config):
        return cls()

    def to_config(self):
        return {}

    def level(self, t):
        at = VP.level(t)
        c = 2 + np.cos(7 * at.t)
        return Level(t, c * at.alpha, c * at.sigma)

    def times(self, count, spacing=None, start=None):
        return VP.times(count, spacing, start)

    def scalings(self, at):
        return Scalings(1, at.t, 1, -at.sigma, 1 / at.alpha, (0, 1))


def spectrum(size=8):
    f = np.fft.fftfreq(size)
    return 0.3 / (1 + 40 * (f[:, None] ** 2 + f[None] ** 2))


METHODS = {
    "ddpm": lambda prior, *_: jd.DDPM(prior),
    "ddim": lambda prior, *_: jd.DDIM(prior, 0.5),
    "dps": lambda prior, a, y: jd.DPS(prior, a, y),
    "dps-adaptive": lambda prior, a, y: jd.DPS(prior, a, y, 100.0, "adaptive"),
    "pigdm": lambda prior, a, y: jd.PiGDM(prior, a, y, 0.1),
    "pigdm-paper": lambda prior, a, y: jd.PiGDM(prior, a, y, 0.1, variance="paper"),
    "diffpir": lambda prior, a, y: jd.samplers.DiffPIR(prior, a, y, 0.1),
    "ddrm": lambda prior, a, y: jd.samplers.DDRM(prior, a, y, 0.1),
    "ddnm": lambda prior, a, y: jd.samplers.DDNM(prior, a, y, 0.1),
    "mmps": lambda prior, a, y: jd.samplers.MMPS(prior, a, y, 0.1),
    "tmpd": lambda prior, a, y: jd.samplers.TMPD(prior, a, y, 0.1),
    "spectral": lambda prior, a, y: jd.SpectralPosterior(prior, a, y, 0.1, prior.covariance),
    "spectral-jacobian": lambda prior, a, y: jd.SpectralPosterior(
        prior, a, y, 0.1, prior.covariance, jacobian=True
    ),
}


@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_the_same_at_every_scaling(method, x64):
    rng = np.random.default_rng(0)
    blur = jd.operators.Blur(np.ones((3, 3)) / 9, (8, 8))
    y, noise = rng.random((8, 8, 1)), rng.standard_normal((7, 2, 8, 8, 1))

    def drawn(schedule):
        sampler = METHODS[method](jd.priors.Gaussian(spectrum(), schedule), blur, y)
        return jd.sample(sampler, schedule.steps(6), noise=noise, key=jax.random.key(0))

    expected = drawn(VP)
    np.testing.assert_allclose(drawn(Scaled()), expected, atol=1e-9)
