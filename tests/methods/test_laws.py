"""The methods' laws on Gaussian priors and a mixture: what they claim to draw.

The linear ones are compared with their recursions in `test_posterior_benchmark.py`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiff as jd
from benchmarks import affine, mixture
from jaxdiff.operators import Mask
from jaxdiff.samplers.inner import systematic
from tests.methods.conftest import matrices

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
    assert not sampler.conjugate
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


def test_repaint_has_the_law_of_its_algorithm(x64):
    """Mean and covariance by its own recursion, dense: two steps, three attempts at each."""
    problem = affine.example(4)
    mask = Mask(RNG.random((4, 4)) < 0.5)
    y = np.asarray(mask(problem.y))
    steps = problem.prior.schedule.steps(2, "trailing")
    shows, known = mask.mask.ravel() > 0, 2 * y.ravel() - 1
    mean, covariance = np.zeros(16), np.eye(16)
    for i in range(2):
        c = affine.row(steps, i)
        denoise, _, _ = matrices(problem, c.now)
        step = np.where(shows[:, None], 0, c.x0_coef * denoise + c.xt_coef * np.eye(16))
        noise = np.diag(np.where(shows, c.next.sigma, c.noise_coef) ** 2)
        back = c.now.alpha / c.next.alpha
        for attempt in range(3):
            if attempt:
                fresh = c.now.sigma**2 * c.fresh * np.eye(16)
                mean, covariance = back * mean, back**2 * covariance + fresh
            mean = step @ mean + np.where(shows, c.next.alpha * known, 0)
            covariance = step @ covariance @ step.T + noise
    sampler = jd.RePaint(problem.prior, mask, y, 0.0, resamplings=3)
    _, states = jd.sample(sampler, steps, key=KEY, n=2000, keep=lambda x, info: x)
    found = np.asarray(states)[-1].reshape(2000, 16)
    np.testing.assert_allclose(found[:, shows] - known[shows], 0, atol=1e-12)
    deviation = np.sqrt(np.diag(covariance))[~shows]
    error = (found.mean(0)[~shows] - mean[~shows]) / deviation
    assert np.abs(error).max() < 5 / np.sqrt(2000)
    np.testing.assert_allclose(found.std(0)[~shows] / deviation, 1, atol=0.06)


def test_tds_nears_the_posterior_as_particles_grow():
    """On a mixture whose posterior has several modes, by the distance of 1,000 draws."""
    grid = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1]), -1).reshape(9, 1, 2, 1) * 0.6
    weights = np.array([9, 1, 4, 1, 6, 1, 2, 1, 9])
    prior = jd.priors.GaussianMixture(grid, np.full(9, 0.003), weights, jd.Schedule.from_config())
    y, sigma, camera = np.array([[[0.66], [0]]]), 0.15, Mask([[1, 0]])
    exact = prior.sample_posterior(KEY, camera, y, sigma, 1000).reshape(1000, 2)
    distances = []
    for particles in (1, 2, 16):
        sampler = jd.TDS(prior, camera, y, sigma, particles)
        _, states = jd.sample(
            sampler, prior.schedule.steps(40, "trailing"), key=KEY, n=1000,
            keep=lambda x, info: x[0][0],
        )  # fmt: skip
        found = np.asarray(states)[-1].reshape(1000, 2)
        distances.append(mixture.sliced_wasserstein(found, exact, np.random.default_rng(0)))
    assert distances[0] > 1.4 * distances[1] > 1.4**2 * distances[2], distances


def test_systematic_resampling():
    """As often as the weights say, up to one; and the first of them by chance."""
    weights = jnp.array([0.05, 0.5, 0.25, 0.2])
    chosen = jax.vmap(lambda key: systematic(key, jnp.log(weights)))(jax.random.split(KEY, 2000))
    counts = np.stack([(np.asarray(chosen) == i).sum(1) for i in range(4)], 1)
    assert (np.abs(counts - 4 * np.asarray(weights)) < 1).all()
    first = np.bincount(np.asarray(chosen)[:, 0], minlength=4) / 2000
    np.testing.assert_allclose(first, weights, atol=0.03)
