"""azula 0.11: its guidance step by step, in float64, on the same network with the same noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiff as jd
from jaxdiff.operators import Blur, Mask
from jaxdiff.samplers import Draws
from jaxdiff.samplers.inner import systematic
from tests.peers.conftest import SHAPE, Network, from_torch, to_torch, torch_network

pytest.importorskip("azula", reason="needs azula: pip install -e .[peers]")
pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.filterwarnings("ignore")]

SIGMA, COUNT = 0.05, 6
STEPS = jd.Schedule.from_config().steps(COUNT)
RNG = np.random.default_rng(0)
NOISE = RNG.standard_normal((COUNT + 1, 1, *SHAPE))
KERNEL = RNG.random((3, 3)) / 5
MASK = RNG.random((8, 8)) < 0.6
Y = RNG.random(SHAPE)
KEY = jax.random.key(0)


def azula_network():
    """Its interface; a time is the number of a level, and the last level is the data."""
    import torch
    from azula.denoise import Denoiser, DiracPosterior

    alpha, sigma = (torch.tensor(np.append(a, end)) for a, end in zip(STEPS.now[1:], (1.0, 0.0)))

    class Levels(Denoiser):
        def schedule(self, t):
            return alpha[int(t)], sigma[int(t)]

        def forward(self, x_t, t, **_):
            x = x_t.reshape(-1, 1, 8, 8)
            return DiracPosterior(torch_network(x / alpha[int(t)]).reshape(x_t.shape))

    return Levels()


def camera(name):
    """The operator on both sides, and their measurement of states in [-1, 1], as vectors."""
    import torch

    ours = Blur(KERNEL, (8, 8)) if name == "blur" else Mask(MASK)
    matrix = np.asarray(jax.vmap(ours)(jnp.eye(64).reshape(64, *SHAPE))).reshape(64, 64).T
    rows = matrix if name == "blur" else matrix[MASK.ravel()]
    matrix = torch.tensor(rows.copy())
    y = 2 * Y.ravel() - matrix.numpy().sum(1) if name == "blur" else 2 * Y.ravel()[MASK.ravel()] - 1
    return (
        ours,
        lambda x: x.reshape(*x.shape[:-3], -1) @ matrix.T if x.shape[-1] == 8 else (x @ matrix.T),
        torch.tensor(y),
    )


def walk(sampler):
    """Its states, of the same noise."""
    import torch

    x, states = to_torch(STEPS.start * NOISE[0, 0])[None].flatten(1), []
    for i in range(COUNT):
        x = sampler.step(x, torch.tensor(float(i)), torch.tensor(i + 1.0))
        states.append(x.detach().numpy().reshape(SHAPE))
    return np.stack(states)


def ours(sampler):
    _, states = jd.sample(sampler, STEPS, noise=NOISE, key=KEY, keep=lambda x, info: x)
    return np.asarray(states)[:, 0]


def test_dps(given):
    """A norm in [-1, 1] is twice that of images, and so is its gradient."""
    from azula.guidance.dps import DPSSampler

    operator, forward, y = camera("blur")
    given(NOISE[1:, 0])
    theirs = walk(DPSSampler(azula_network(), y[None], forward, zeta=0.5))
    np.testing.assert_allclose(ours(jd.DPS(Network(), operator, Y)), theirs, atol=1e-10)


@pytest.mark.parametrize("iterations", [1, 3])
def test_mmps(iterations, given):
    """With its conjugate gradients; by default it takes GMRES."""
    from azula.guidance.mmps import MMPSDenoiser
    from azula.linalg.covariance import IsotropicCovariance
    from azula.sample import DDPMSampler

    operator, forward, y = camera("blur")
    noise = IsotropicCovariance((2 * SIGMA) ** 2)
    given(NOISE[1:, 0])
    guided = MMPSDenoiser(azula_network(), y[None], forward, noise, "cg", iterations)
    theirs = walk(DDPMSampler(guided, silent=True))
    sampler = jd.MMPS(Network(), operator, Y, SIGMA, iterations)
    np.testing.assert_allclose(ours(sampler), theirs, atol=1e-8)
    given(NOISE[1:, 0])
    guided = MMPSDenoiser(azula_network(), y[None], forward, noise, iterations=iterations)
    assert np.abs(walk(DDPMSampler(guided, silent=True)) - theirs).max() > 1e-3


def test_tmpd(given):
    from azula.guidance.tmpd import TMPDenoiser
    from azula.sample import DDPMSampler

    operator, forward, y = camera("blur")
    given(NOISE[1:, 0])
    guided = TMPDenoiser(azula_network(), y[None], forward, (2 * SIGMA) ** 2)
    theirs = walk(DDPMSampler(guided, silent=True))
    np.testing.assert_allclose(ours(jd.TMPD(Network(), operator, Y, SIGMA)), theirs, atol=1e-8)


def test_diffpir_is_one_iteration_of_a_proximal_step_and_has_no_zeta():
    """Its proximal step is the paper's once its solver has converged, which by default it has not."""
    import torch
    from azula.guidance.diffpir import DiffPIRDenoiser

    operator, forward, y = camera("blur")
    for i in (2, 4):
        c = jax.tree.map(lambda a, i=i: a[i], STEPS)
        x = 0.5 * NOISE[i, 0]
        t, vector = torch.tensor(float(i)), to_torch(x)[None].flatten(1)
        network, variance = azula_network(), (2 * SIGMA) ** 2

        def found(c=c, network=network, variance=variance, t=t, vector=vector, **options):
            guided = DiffPIRDenoiser(network, y[None], forward, variance, 1.0, **options)
            return guided(vector, t).mean.detach().numpy().reshape(SHAPE)

        sampler = jd.DiffPIR(Network(), operator, Y, SIGMA, 1.0, 1.0)
        moved, _ = sampler.step(jnp.asarray(x), c, Draws(jnp.zeros(SHAPE)))  # ζ = 1: α_s·x₀
        expected = np.asarray(moved) / c.next.alpha
        np.testing.assert_allclose(found(solver="cg", iterations=60), expected, atol=1e-8)
        assert np.abs(found() - expected).max() > 1e-2


def test_repaint(given):
    """The same draws: of a step, of the known pixels, and of the way back."""
    import torch
    from azula.guidance.repaint import RePaintSampler

    operator, known = Mask(MASK), 2 * Y - 1
    sampler, x = jd.RePaint(Network(), operator, Y, SIGMA, 3), jnp.asarray(NOISE[0, 0])
    theirs = RePaintSampler(
        azula_network(),
        to_torch(known)[None].flatten(1),
        torch.tensor(MASK.ravel()),
        iterations=3,
        eta=1.0,
        silent=True,
    )
    step = jax.jit(type(sampler).step)
    for i in range(COUNT):
        key = jax.random.fold_in(KEY, i)
        draws = [jax.random.normal(k, (3, *SHAPE), float) for k in jax.random.split(key, 3)]
        given([z for three in draws for z in three])
        vector = to_torch(x)[None].flatten(1)
        expected = theirs.step(vector, torch.tensor(float(i)), torch.tensor(i + 1.0))
        c = jax.tree.map(lambda a, i=i: a[i], STEPS)
        x, _ = step(sampler, x, c, Draws(jnp.zeros(SHAPE), key))
        np.testing.assert_allclose(x, expected.numpy().reshape(SHAPE), atol=1e-10)


def test_pgdm_ignores_the_noise_and_shrinks_the_guidance_by_alpha_s(given):
    """The paper's is √ᾱ_t·(∂x̂₀/∂x_t)ᵀ r²Aᵀ(r²AAᵀ + σ²I)⁻¹(y − A x̂₀): only at σ = 0 is it theirs, over α_s."""
    import torch
    from azula.guidance.pgdm import PGDMSampler

    operator, _, _ = camera("mask")
    shows = torch.tensor(MASK.ravel().astype(float))
    known = to_torch(2 * Y - 1).flatten() * shows
    theirs = PGDMSampler(
        azula_network(), known[None], lambda x: x * shows, lambda y: y, eta=1.0, silent=True
    )
    x, i = 0.5 * NOISE[3, 0], 3
    c = jax.tree.map(lambda a: a[i], STEPS)
    draws, start = Draws(jnp.zeros(SHAPE)), jnp.asarray(x)
    given(np.zeros((1, *SHAPE)))
    found = theirs.step(to_torch(x)[None].flatten(1), torch.tensor(3.0), torch.tensor(4.0))
    plain = jd.DDPM(Network()).step(start, c, draws)[0]
    shift = found.detach().numpy().reshape(SHAPE) - plain

    def guidance(sigma):
        sampler = jd.PiGDM(Network(), operator, Y * MASK[..., None], sigma, variance="paper")
        return sampler.step(start, c, draws)[0] - plain

    np.testing.assert_allclose(shift, c.next.alpha * guidance(0.0), atol=1e-8)
    assert np.abs(shift - c.next.alpha * guidance(0.3)).max() > 0.02


def test_tds_weighs_and_moves_as_ours(given, monkeypatch):
    """Its proposals and its weights, with our twist and our resampling; it takes multinomial."""
    import torch
    from azula.guidance.tds import TDSSampler
    from torch.distributions import Normal

    operator, _, _ = camera("mask")
    shows, known = torch.tensor(MASK.ravel()), to_torch(2 * Y - 1).flatten()
    sampler = jd.TDS(Network(), operator, Y, SIGMA, 3)

    def twist(x_hat, deviation):
        r2 = deviation**2 / (1 + deviation**2)
        misfit = ((known - x_hat) ** 2)[:, shows]
        return -misfit.sum(1) / (2 * (r2 + (2 * SIGMA) ** 2))

    theirs, carry = TDSSampler(azula_network(), twist, silent=True), {}
    x = RNG.standard_normal((3, *SHAPE))
    state, step = sampler.begin(jnp.asarray(x)), jax.jit(type(sampler).step)
    x = to_torch(x).flatten(1)
    for i in range(COUNT - 1):  # at the last level theirs has p/q = 0/0
        key, z = jax.random.fold_in(KEY, i), RNG.standard_normal((3, *SHAPE))
        monkeypatch.setattr(
            torch,
            "multinomial",
            lambda w, n, replacement, key=key: torch.tensor(
                np.asarray(systematic(key, jnp.log(jnp.asarray(w.numpy()))))
            ),
        )
        monkeypatch.setattr(
            Normal, "sample", lambda q, z=z: q.loc + q.scale * to_torch(z).flatten(1)
        )
        x = theirs.step(x, torch.tensor(float(i)), torch.tensor(i + 1.0), carry=carry)
        c = jax.tree.map(lambda a, i=i: a[i], STEPS)
        state, _ = step(sampler, state, c, Draws(jnp.asarray(z), key))
        np.testing.assert_allclose(state[0], from_torch(x.reshape(3, 1, 8, 8)), atol=1e-7)
        np.testing.assert_allclose(state[1], carry["log_w"].numpy(), rtol=1e-7, atol=1e-6)
