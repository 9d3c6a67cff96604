"""The methods' steps against what they are said to compute, by other means."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiff as jd
from benchmarks import affine
from jaxdiff.operators import Downsample, Mask
from tests.methods.conftest import matrices

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


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


def test_tmpd_takes_the_size_of_a_row_that_sums_to_less_than_0(x64):
    """As 0 it would count as known exactly, and be divided by σ² alone."""
    direction = np.array([1, 0.5, -0.4, 0])
    spread = np.outer(direction, direction) + 0.01 * np.eye(4)
    schedule = jd.Schedule.from_config()
    prior = jd.priors.GaussianMixture(np.zeros((1, 2, 2, 1)), spread[None], [1], schedule)
    c = affine.row(schedule.steps(10), 4)
    x, y, sigma = RNG.standard_normal((2, 2, 1)), RNG.random((2, 2, 1)), 0.1
    gain = c.now.alpha * spread @ np.linalg.inv(c.now.signal * spread + c.now.noise * np.eye(4))
    covariance = c.now.noise / c.now.alpha * gain / 4  # of images
    assert covariance.sum(1).min() < -(sigma**2)
    x0_hat = (gain @ x.ravel() + 1) / 2
    weight = 1 / (np.abs(covariance.sum(1)) + sigma**2)
    image = x0_hat + covariance @ (weight * (y.ravel() - x0_hat))
    sampler = jd.TMPD(prior, Mask(np.ones((2, 2))), y, sigma)
    moved, _ = sampler.step(jnp.asarray(x), c, jd.samplers.Draws(jnp.zeros((2, 2, 1))))
    expected = c.xt_coef * x.ravel() + c.x0_coef * (2 * image - 1)
    np.testing.assert_allclose(moved.ravel(), expected, atol=1e-10)
