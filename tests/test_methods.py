"""The methods against what they claim: their laws on Gaussian priors, and what they refuse.

The linear ones are compared with their recursions in `test_posterior_benchmark.py`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiff as jd
from benchmarks import affine
from jaxdiff.operators import Blur, Crop, Downsample, Grey, Mask, Scale
from tests.test_samplers import Toy

pytestmark = pytest.mark.usefixtures("hurried")

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
DRAWS = 500


def kept(sampler, steps, n=DRAWS):
    """The last states of n samples, by frequency [n, H, W]."""
    _, states = jd.sample(sampler, steps, key=KEY, n=n, keep=lambda x, info: x)
    return np.fft.fft2(np.asarray(states)[-1, ..., 0], norm="ortho")


def check_law(found, mean, variance):
    """Mean and variance by frequency, within Monte Carlo: of 64 frequencies none is 5 errors off."""
    error = np.sqrt(variance / len(found))
    assert np.abs(found.mean(0) - mean).max() < 5 * error.max()
    assert np.sqrt(np.mean(np.abs(found.mean(0) - mean) ** 2 / error**2)) < 1.25
    ratio = np.abs(found - found.mean(0)) ** 2 / variance
    assert ratio.mean() == pytest.approx(1, abs=0.03)
    assert np.abs(ratio.mean(0) - 1).max() < 5 * np.sqrt(2 / len(found))


def descended(problem, ladder, stochastic):
    """(f, w²) by frequency of a ladder from x_t to the data, with the exact denoiser."""
    f, w2, s = np.ones(problem.k.shape), np.zeros(problem.k.shape), problem.prior.spectrum
    for k in range(len(ladder)):
        c = affine.row(ladder, k)
        a, sigma = c.now.alpha, c.now.sigma
        d = a * s / (a**2 * s + sigma**2)
        if stochastic:
            g, fresh = c.x0_coef * d + c.xt_coef, c.noise_coef
        else:
            g, fresh = c.next.alpha * d + c.next.sigma * (1 - a * d) / sigma, 0
        f, w2 = g * f, g**2 * w2 + fresh**2
    return f, w2


def pnpdm_law(problem, steps, moves=None):
    """Mean and variance of x, and what split Gibbs aims at; `moves` Langevin moves of γ, where given."""
    k, s, sigma2 = problem.k / 2, problem.prior.spectrum, problem.sigma**2
    mean, variance = np.zeros(k.shape, complex), np.ones(k.shape)
    for i in range(len(steps)):
        c = affine.row(steps, i)
        v = c.now.variance
        gain = v * k.conj() / (v * np.abs(k) ** 2 + sigma2)
        kept, drawn = 1 - gain * k, v * sigma2 / (v * np.abs(k) ** 2 + sigma2)
        if moves is not None:
            kept, gain, drawn = chain_law(problem, "langevin", *moves, np.sqrt(v))
        f, w2 = descended(problem, c.inner, True)
        f = f * c.now.alpha
        mean = f * (kept * mean + gain * problem.y_hat)
        variance = f**2 * (np.abs(kept) ** 2 * variance + drawn) + w2
    wide = sigma2 + np.abs(k) ** 2 * v
    return mean, variance, s * wide / (np.abs(k) ** 2 * s + wide)


def test_pnpdm_has_the_law_of_split_gibbs(x64):
    """Its own recursion, exactly; and the more steps the prior's draw takes, the law it is after."""
    problem = affine.example(8)
    schedule = problem.prior.schedule
    t = int(schedule.nearest(0.3))
    sampler = jd.PnPDM(problem.prior, problem.blur, problem.y, problem.sigma, inner=8)
    steps = schedule.steps(np.full(6, t), inner=8)
    mean, variance, _ = pnpdm_law(problem, steps)
    check_law(kept(sampler, steps), mean, variance)

    def off(inner):
        _, variance, aim = pnpdm_law(problem, schedule.steps(np.full(30, t), inner=inner))
        return np.abs(variance - aim).max() / aim.max()

    coarse, middle, fine = off(t // 4), off(t // 2), off(t)
    assert fine < 0.06 and fine < 0.6 * middle < 0.6**2 * coarse, "an error of first order"


def test_pnpdm_moves_where_it_has_no_exact_draw(x64):
    """Langevin moves, of an operator that does not say that it is linear."""
    problem, moves = affine.example(8), (3e-4, 8)
    schedule = problem.prior.schedule
    steps = schedule.steps(np.full(3, int(schedule.nearest(0.3))), inner=8)
    sampler = jd.PnPDM(
        problem.prior, lambda x: problem.blur(x), problem.y, problem.sigma, inner=8,
        gamma=moves[0], count=moves[1],
    )  # fmt: skip
    assert not sampler.linear
    mean, variance, _ = pnpdm_law(problem, steps, moves)
    check_law(kept(sampler, steps), mean, variance)


def chain_law(problem, moves, eta, count, deviation):
    """x₀ = f·x̂₀ + g·ŷ and its variance, of the moves from x̂₀ with the noise's own likelihood."""
    k = problem.k / 2
    stiffness = np.abs(k) ** 2 / problem.sigma**2 + 1 / deviation**2
    if moves == "langevin":
        step = (1 - eta * stiffness)[..., None, None]
        force, noise = np.array([eta]), np.array([np.sqrt(2 * eta)])
        start = np.zeros((1, 1))
    else:  # of (x₀, v)
        root = np.sqrt(eta)
        step = np.stack(
            [np.stack([1 - eta * stiffness, 0.9 * root + 0 * stiffness], -1),
             np.stack([-root * stiffness, 0.9 + 0 * stiffness], -1)], -2,
        )  # fmt: skip
        force, noise = np.array([eta, root]), np.sqrt(0.2) * np.array([root, 1])
        start = np.diag([0.0, 1.0])
    size = len(force)
    f = np.zeros((*k.shape, size))
    f[..., 0] = 1
    g = np.zeros((*k.shape, size), complex)
    covariance = np.broadcast_to(start, (*k.shape, size, size))
    for _ in range(count):
        f = np.einsum("...ij,...j->...i", step, f) + force / deviation**2
        g = (
            np.einsum("...ij,...j->...i", step, g)
            + force * (k.conj() / problem.sigma**2)[..., None]
        )
        covariance = step @ covariance @ step.swapaxes(-1, -2) + np.outer(noise, noise)
    return f[..., 0], g[..., 0], covariance[..., 0, 0]


@pytest.mark.parametrize("moves", ["langevin", "hmc"])
def test_daps_has_its_own_law(moves, x64):
    """Levels apart from each other: an affine recursion, here at one level again and again."""
    problem = affine.example(8)
    schedule, eta, count = problem.prior.schedule, 3e-4, 8
    sampler = jd.DAPS(
        problem.prior, problem.blur, problem.y, problem.sigma, moves, eta, count, tau=None, inner=3
    )
    steps = schedule.steps(np.full(4, int(schedule.nearest(0.4))), inner=3)
    c = affine.row(steps, 0)
    deviation = c.now.sigma / c.now.alpha
    place = (100 ** (1 / 7) - deviation ** (1 / 7)) / (100 ** (1 / 7) - 0.1 ** (1 / 7))
    f, g, w2 = chain_law(problem, moves, eta * (1 - 0.99 * place), count, deviation)
    down, _ = descended(problem, c.inner, False)
    mean, variance = np.zeros(f.shape, complex), np.ones(f.shape)
    for i in range(len(steps)):
        mean, variance = f * down * mean + g * problem.y_hat, (f * down) ** 2 * variance + w2
        if i + 1 < len(steps):
            mean, variance = c.now.alpha * mean, c.now.alpha**2 * variance + c.now.sigma**2
    check_law(kept(sampler, steps), mean, variance)


OPERATORS = {
    "blur": lambda: Blur(RNG.random((3, 4)), (4, 6)),
    "mask": lambda: Mask(RNG.random((4, 6)) < 0.5),
    "crop": lambda: Crop(1),
    "downsample": lambda: Downsample(2, "bicubic"),
    "grey": lambda: Grey(),
    "scale": lambda: Scale(0.7),
    "states": lambda: Downsample(2) @ Scale(0.5),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_spectral_functions(name, x64):
    """f(AᵀA) against the eigenvectors of the matrix, for an f that is not 0 at 0."""
    operator, shape = OPERATORS[name](), (4, 6, 3)
    x = jnp.asarray(RNG.standard_normal(shape))
    matrix = np.asarray(jax.vmap(operator)(jnp.eye(72).reshape(72, *shape))).reshape(72, -1)
    values, vectors = np.linalg.eigh(matrix @ matrix.T)
    expected = vectors @ (np.cos(3 * values) * (vectors.T @ x.ravel()))
    found = operator.spectral(lambda e: jnp.cos(3 * e), x)
    np.testing.assert_allclose(found.ravel(), expected, atol=1e-10)


@pytest.mark.parametrize("method", [jd.DDRM, jd.DDNM])
def test_what_a_mask_shows_and_hides(method, x64):
    """σ = 0: the known pixels are y's in the end, and the hidden ones are the prior's."""
    prior = jd.priors.Gaussian(np.full((8, 8), 0.1), jd.Schedule.from_config())
    mask = Mask(np.arange(64).reshape(8, 8) % 2)
    y = np.asarray(mask(np.full((8, 8, 1), 0.6)))
    _, states = jd.sample(
        method(prior, mask, y, 0.0), prior.schedule.steps(10), key=KEY, keep=lambda x, info: x
    )
    last = np.asarray(states)[-1, 0]
    np.testing.assert_allclose(last[mask.mask > 0], 0.2, atol=1e-12)
    assert 0.01 < last[mask.mask == 0].std() < 0.4


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
    for count in (0, 2.5, True):
        with pytest.raises(ValueError, match="steps: expected an integer"):
            jd.DAPS(prior, BLUR, y, 0.1).steps(count)
