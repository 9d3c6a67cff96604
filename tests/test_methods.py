"""The methods against what they claim: their laws on Gaussian priors, and what they refuse.

The linear ones are compared with their recursions in `test_posterior_benchmark.py`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiff as jd
from benchmarks import affine, mixture
from jaxdiff.operators import (
    Blur,
    Crop,
    Demosaic,
    Diagonal,
    Downsample,
    Fourier,
    Grey,
    Mask,
    Scale,
)
from jaxdiff.samplers.inner import systematic
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


def matrices(problem, at):
    """The exact denoiser at a level, the blur of states, and y less A(1/2), as matrices and a vector."""
    size = problem.y.size
    unit = jnp.eye(size).reshape(size, *problem.y.shape)
    denoise = np.asarray(jax.vmap(lambda e: problem.prior(e, at))(unit)).reshape(size, size).T
    blur = np.asarray(jax.vmap(problem.blur)(unit)).reshape(size, size).T / 2
    return denoise, blur, problem.y.ravel() - 2 * blur @ np.full(size, 0.5)


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


def test_reddiff_is_adam_on_its_loss(x64):
    """Against torch's Adam, with the same noise, four steps."""
    import torch

    problem = affine.example(4)
    sampler = jd.REDDiff(problem.prior, problem.blur, problem.y, problem.sigma)
    steps = problem.prior.schedule.steps(4)
    noise = RNG.standard_normal((5, 1, 4, 4, 1))
    _, states = jd.sample(sampler, steps, noise=noise, keep=lambda x, info: x[0])
    _, blur, y = matrices(problem, 0)
    start = np.linalg.solve(blur.T @ blur + problem.sigma**2 * np.eye(16), blur.T @ y)
    mu = torch.tensor(start, requires_grad=True)
    adam = torch.optim.Adam([mu], lr=0.1, betas=(0.9, 0.99))
    for i in range(4):
        c, z = affine.row(steps, i), noise[i + 1].ravel()
        denoise, _, _ = matrices(problem, c.now)
        x = c.now.alpha * mu.detach().numpy() + c.now.sigma * z
        eps = (x - c.now.alpha * denoise @ x) / c.now.sigma
        misfit = 2 * (torch.tensor(y) - torch.tensor(blur) @ mu)  # of [-1, 1]
        loss = (misfit**2).mean() / 2
        loss += 0.25 * c.now.sigma / c.now.alpha * (torch.tensor(eps - z) * mu).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        np.testing.assert_allclose(states[i, 0].ravel(), mu.detach().numpy(), atol=1e-9)


@pytest.mark.parametrize("sigma", [0.0, 0.08])
def test_sitcom_is_adam_until_it_fits(sigma, x64):
    """Against torch's Adam on the network's input; with noise it stops early."""
    import torch

    problem = affine.example(4)
    sampler = jd.SITCOM(problem.prior, problem.blur, problem.y, sigma, K=6)
    steps = problem.prior.schedule.steps(3)
    noise = RNG.standard_normal((4, 1, 4, 4, 1))
    _, states = jd.sample(sampler, steps, noise=noise, keep=lambda x, info: x)
    x, counts = noise[0].ravel(), {}
    for i in range(3):
        c = affine.row(steps, i)
        denoise, blur, y = (torch.tensor(m) for m in matrices(problem, c.now))
        v = torch.tensor(steps.start * x if i == 0 else x, requires_grad=True)
        adam = torch.optim.Adam([v], lr=0.02)
        for k in range(1, 7):
            counts[i] = k
            x0 = denoise @ v
            loss = ((y - blur @ x0) ** 2).sum()
            if loss < sigma**2 * 16:
                break
            adam.zero_grad()
            loss.backward()
            adam.step()
        x = c.next.alpha * x0.detach().numpy() + c.next.sigma * noise[i + 1].ravel()
        np.testing.assert_allclose(states[i, 0].ravel(), x, atol=1e-9)
    assert (min(counts.values()) < 6) == (sigma > 0)


def test_fastdips_finds_the_point_of_the_ball(x64):
    """After many splitting steps: the x next to x̂₀ with ‖A(x) − y‖ = ε√m, by its multiplier."""
    problem = affine.example(4)
    sampler = jd.FastDIPS(problem.prior, problem.blur, problem.y, 0.02, K=3000, rho=20)
    c = affine.row(problem.prior.schedule.steps(4), 2)
    x = RNG.standard_normal((4, 4, 1))
    _, blur, y = matrices(problem, c.now)
    x0_hat = np.asarray(problem.prior(jnp.asarray(x), c.now)).ravel()

    def point(multiplier):
        system = np.eye(16) + multiplier * blur.T @ blur
        return np.linalg.solve(system, x0_hat + multiplier * blur.T @ y)

    low, high = 0.0, 1e8
    for _ in range(200):
        middle = (low + high) / 2
        outside = np.linalg.norm(blur @ point(middle) - y) > 0.02 * 4
        low, high = (middle, high) if outside else (low, middle)
    moved, _ = jax.jit(type(sampler).step)(
        sampler, jnp.asarray(x), c, jd.samplers.Draws(jnp.zeros((4, 4, 1)))
    )
    np.testing.assert_allclose(moved.ravel() / c.next.alpha, point(high), atol=1e-6)


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


OPERATORS = {
    "blur": lambda: Blur(RNG.random((3, 4)), (4, 6)),
    "mask": lambda: Mask(RNG.random((4, 6)) < 0.5),
    "crop": lambda: Crop(1),
    "downsample": lambda: Downsample(2, "bicubic"),
    "grey": lambda: Grey(),
    "scale": lambda: Scale(0.7),
    "states": lambda: Downsample(2) @ Scale(0.5),
    "matlab": lambda: Downsample(2, "matlab"),
    "demosaic": lambda: Demosaic(),
    "fourier": lambda: Fourier(RNG.random((4, 6)) < 0.5),
    "weighted-mask": lambda: Diagonal(RNG.random((4, 6, 3))) @ Mask(RNG.random((4, 6)) < 0.5),
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


@jd.pytree
class Laplace(jd.noise.Noise):
    scale: float

    def log_prob(self, y, mean):
        return -jnp.abs(y - mean).sum() / self.scale

    def draw(self, key, mean):
        return mean + self.scale * jax.random.laplace(key, mean.shape, mean.dtype)


@pytest.mark.parametrize("method", [jd.DAPS, jd.PnPDM])
def test_what_takes_a_likelihood_takes_any_noise(method):
    """In float32, a step each, of an operator that is not linear."""
    sampler = method(Toy(np.float32(1)), lambda x: x**2, np.full((8, 8, 3), 0.3, "f"), Laplace(0.1))
    steps = jd.Schedule.from_config().steps(np.array([300, 100]), inner=sampler.inner)
    assert np.isfinite(np.asarray(jd.sample(sampler, steps, key=KEY))).all()


def test_ddnm_without_noise_is_a_replacement(x64):
    """σ = 0: α_s(x̂₀ + A⁺(y − A x̂₀)) and DDIM's noise, of an operator that sees little of some directions."""
    problem = affine.example(8)
    operator = Downsample(2)
    y = np.asarray(operator(problem.y))
    c = affine.row(problem.prior.schedule.steps(10), 4)
    x, z = (jnp.asarray(RNG.standard_normal((8, 8, 1))) for _ in range(2))
    p = problem.prior.predict(x, c.now)
    image = (p.x0_hat + 1) / 2
    replaced = 2 * (image + operator.pinv(y - operator(image))) - 1
    noise = np.sqrt(1 - 0.85**2) * p.eps + 0.85 * z
    moved, _ = jd.DDNM(problem.prior, operator, y, 0).step(x, c, jd.samplers.Draws(z))
    expected = c.next.alpha * replaced + c.next.sigma * noise
    np.testing.assert_allclose(moved, expected, atol=1e-10)


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
