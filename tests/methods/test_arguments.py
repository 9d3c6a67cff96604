"""What the methods take and refuse, and the levels that they want."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

import jaxdiff as jd
from jaxdiff.noise import Laplace
from jaxdiff.operators import Blur, Crop, Grey, Mask
from jaxdiff.util.pytree import pytree
from tests.test_samplers import COVARIANCE, MODULATION, Toy, make

KEY = jax.random.key(0)


@pytest.mark.parametrize("method", [jd.DAPS, jd.PnPDM])
def test_what_takes_a_likelihood_takes_any_noise(method):
    """In float32, a step each, of an operator that is not linear."""
    sampler = method(Toy(np.float32(1)), lambda x: x**2, np.full((8, 8, 3), 0.3, "f"), Laplace(0.1))
    steps = jd.Schedule.from_config().steps(np.array([300, 100]), inner=sampler.inner)
    assert np.isfinite(np.asarray(jd.sample(sampler, steps, key=KEY))).all()


BLUR = Blur(np.ones((3, 3)) / 9, (8, 8))
REFUSED = {
    "no-spectrum": (jd.DDRM, {"operator": Crop(2) @ BLUR, "y": np.zeros((4, 4, 3))}, TypeError, "spectral"),
    "no-spectrum-2": (jd.DDNM, {"operator": Grey() @ BLUR, "y": np.zeros((8, 8, 1))}, TypeError, "Grey @ Blur"),
    "nonlinear": (jd.DiffPIR, {"operator": lambda x: x**2}, TypeError, "not linear"),
    "eta": (jd.DDRM, {"eta": 1.5}, ValueError, "eta: expected a number from 0 to 1"),
    "zeta": (jd.DiffPIR, {"zeta": -0.1}, ValueError, "zeta"),
    "iterations": (jd.MMPS, {"iterations": 0}, ValueError, "iterations: expected an integer"),
    "moves": (jd.DAPS, {"moves": "gibbs"}, ValueError, "expected 'langevin' or 'hmc'"),
    "no-likelihood": (jd.DAPS, {"sigma": 0, "tau": None}, ValueError, "DAPS divides by it"),
    "no-likelihood-2": (jd.PnPDM, {"operator": lambda x: x**2, "sigma": 0}, ValueError, "PnPDM divides"),
    "no-likelihood-4": (jd.TDS, {"sigma": jd.noise.Gaussian(0.0)}, ValueError, "expected a number > 0, got 0"),
    "no-likelihood-3": (jd.TDS, {"sigma": 0}, ValueError, "TDS divides"),
    "no-mask": (jd.RePaint, {}, TypeError, "RePaint takes jd.operators.Mask only, got Blur"),
    "not-gaussian": (jd.SITCOM, {"sigma": Laplace(0.1)}, TypeError, "needs Gaussian noise, got Laplace"),
    "not-gaussian-2": (jd.FastDIPS, {"sigma": Laplace(0.1)}, TypeError, "needs Gaussian noise"),
    "not-gaussian-3": (jd.DDRM, {"sigma": Laplace(0.1)}, TypeError, "needs Gaussian noise"),
    "particles": (jd.TDS, {"particles": True}, ValueError, "particles: expected an integer"),
    "resamplings": (jd.RePaint, {"resamplings": 0, "operator": Mask(np.eye(8))}, ValueError, "resamplings"),
    "lambda": (jd.REDDiff, {"lambda_": np.inf}, ValueError, "lambda_: expected a number"),
    "K": (jd.SITCOM, {"K": 2.0}, ValueError, "K: expected an integer"),
    "tau": (jd.DAPS, {"tau": 0}, ValueError, "DAPS divides"),
    "inner": (jd.PnPDM, {"inner": 0}, ValueError, "inner: expected an integer"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case):
    method, changes, error, message = REFUSED[case]
    fields = {"operator": BLUR, "y": np.full((8, 8, 3), 0.5), "sigma": 0.1} | changes
    with pytest.raises(error, match=message):
        method(Toy(np.float32(1)), **fields)


def test_a_ladder_that_is_missing():
    sampler = jd.DAPS(Toy(np.float32(1)), BLUR, np.full((8, 8, 3), 0.5), 0.1)
    schedule = jd.Schedule.from_config()
    for steps in (schedule.steps(2), schedule.steps(2, inner=3)):
        with pytest.raises(ValueError, match=r"DAPS wants 5 steps.*inner=5"):
            jd.sample(sampler, steps, key=KEY)


def test_levels_of_ones_own():
    """Those that DAPS and PnP-DM want, on a schedule with steps of its own."""
    prior = jd.priors.Gaussian(np.full((8, 8), 0.1), jd.Schedule.from_config())
    y = np.full((8, 8, 1), 0.5)
    steps = jd.DAPS(prior, BLUR, y, 0.1).steps(200)
    deviations = steps.now.sigma / steps.now.alpha
    even = np.linspace(100 ** (1 / 7), 0.1 ** (1 / 7), 200)
    np.testing.assert_allclose(deviations, even**7, rtol=0.06)
    assert steps.inner.t.shape == (200, 5) and len(np.unique(steps.t)) == 200
    steps = jd.PnPDM(prior, BLUR, y, 0.1, rho=3, rho_decay_rate=0.5).steps(6)
    np.testing.assert_allclose(
        steps.now.sigma / steps.now.alpha, [3, 1.5, 0.75, 0.375, 0.3, 0.3], rtol=0.03
    )
    steps = jd.DiffPIR(prior, BLUR, y, 0.1).steps(100)
    np.testing.assert_array_equal(steps.t[[0, 1, 2, 98, 99]], [999, 899, 857, 5, 0])
    for count in (0, 2.5, True):
        with pytest.raises(ValueError, match="steps: expected an integer"):
            jd.DAPS(prior, BLUR, y, 0.1).steps(count)


@pytest.mark.parametrize("name", ["pigdm", "spectral"])
def test_the_operator_must_be_linear(name):
    @pytree
    class Halve:
        factor: Any
        shape = (8, 8)

        def __call__(self, x):
            return self.factor * x

    @pytree
    class Square(jd.operators.Linear):
        factor: Any
        shape = (8, 8)

        def __call__(self, x):
            return self.factor * x**2

    sampler = make(name)

    def rebuild(operator, y=sampler.y):
        return dataclasses.replace(sampler, operator=operator, y=y)

    halve = Halve(np.float32(0.5))
    for operator, y in (
        (halve, sampler.y),
        (jd.operators.Stack([halve, halve]), np.stack([sampler.y] * 2)),
    ):
        if sampler.requires_linear:
            with pytest.raises(TypeError, match="Halve"):
                rebuild(operator, y)
        else:
            assert rebuild(operator, y).y is y
    with pytest.raises(ValueError, match="Square is not linear"):
        rebuild(Square(np.float32(2)))
    batch = np.stack([sampler.y] * 2)
    fields = {"operator": jd.operators.Stack([halve, halve]), "y": batch}
    assert jd.DPS(sampler.denoiser, **fields).y is batch, "DPS takes any differentiable operator"


def test_bad_covariances():
    sampler = make("spectral", network=True)

    def rebuild(**changes):
        covariance = dataclasses.replace(COVARIANCE, **changes)
        return dataclasses.replace(sampler, covariance=covariance)

    with pytest.raises(ValueError, match="of 1 channels, the prior has 3"):
        rebuild(table=COVARIANCE.table[..., :1, :1])
    with pytest.raises(ValueError, match="another noise schedule"):
        rebuild(alphas_cumprod=COVARIANCE.alphas_cumprod * 0.9)
    with pytest.raises(ValueError, match="table"):
        rebuild(table=COVARIANCE.table[0])
    with pytest.raises(ValueError, match=r"modulation: expected \[L, 2\]"):
        rebuild(modulation=MODULATION.T)
    with pytest.raises(ValueError, match="modulation: holds NaN"):
        rebuild(modulation=MODULATION * np.nan)
    with pytest.raises(FileNotFoundError, match="jaxdiff calibrate"):
        jd.SpectralCovariance.load(jd.__file__.rpartition("/")[0])
