"""deepinv 0.5: its samplers step by step, in float64, on the same network with the same noise.

Where it departs from the paper the test undoes the departure, and shows that it was one.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiff as jd
from benchmarks import with_azula, with_deepinv
from jaxdiff.commands.cameras import operator as named_operator
from jaxdiff.operators import Affine, Blur, Linear, Mask
from jaxdiff.schedules import Level, Scalings
from tests.peers.conftest import SHAPE, Network, from_torch, to_torch, torch_network

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.filterwarnings("ignore")]

NEEDED = "needs deepinv: pip install -e .[peers]"
SIGMA = 0.05
RNG = np.random.default_rng(0)
MASK = (RNG.random((8, 8)) < 0.6).astype(float)
Y = RNG.random(SHAPE) * MASK[..., None]
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def deepinv():
    with_azula.torchvision_operators()
    return pytest.importorskip("deepinv", reason=NEEDED)


@jd.pytree
class Exploding(jd.Schedule, schedulers=("PeersExploding",)):
    """x_t = x₀ + σ·ε, the times themselves the σ."""

    @classmethod
    def _from_config(cls, config):
        return cls()

    def to_config(self):
        return {"_class_name": "PeersExploding"}

    def level(self, t):
        return Level(t, np.ones_like(t), t)

    def times(self, count, spacing=None, start=None):
        return np.linspace(1, 0, count, endpoint=False)

    def scalings(self, at):
        return Scalings(1, at.t, 1, -at.sigma, 1, (0, 1))


def inpainting(deepinv, sigma=SIGMA):
    import torch

    return deepinv.physics.Inpainting(
        img_size=(1, 8, 8),
        mask=torch.tensor(MASK)[None],
        noise_model=deepinv.physics.GaussianNoise(sigma),
    )


def of_images(x, sigma):
    """The network, of images in [0, 1]."""
    return torch_network(2 * x - 1) / 2 + 0.5


def blurred(deepinv):
    """A blur on both sides."""
    import torch

    kernel = RNG.random((3, 3)) / 9
    blur = Blur(kernel, (8, 8))
    rows = np.asarray(jax.vmap(blur)(jnp.eye(64).reshape(64, *SHAPE))).reshape(64, 64)
    matrix = torch.tensor(rows.copy())
    physics = deepinv.physics.LinearPhysics(
        A=lambda x, **_: (x.reshape(-1, 64) @ matrix.to(x)).reshape(x.shape),
        A_adjoint=lambda y, **_: (y.reshape(-1, 64) @ matrix.T.to(y)).reshape(y.shape),
        noise_model=deepinv.physics.GaussianNoise(SIGMA),
    )
    return blur, physics


def test_ddrm_halves_the_variance_of_its_noise(deepinv, given):
    """Every draw is over √2. With that undone it is DDRM, up to the 1e-6 that it adds to divisors."""
    sigmas = np.array([1.0, 0.5, 0.2, 0.08, 0.03])
    prior = Network(decode=Affine(1, 0))
    sampler = jd.DDRM(prior, Mask(MASK), Y, SIGMA)
    steps = Exploding().steps(sigmas)
    draws = RNG.standard_normal((5, *SHAPE))
    shows = MASK[..., None] > 0
    begin = np.where(shows, Y, 0) + np.sqrt(1 - np.where(shows, SIGMA, 0) ** 2) * draws[0]
    noise = np.concatenate([(begin / steps.start)[None], draws[1:], draws[:1]])[:, None]
    _, states = jd.sample(sampler, steps, noise=noise, keep=lambda x, info: x)
    ours = np.asarray(states)[-1, 0]
    theirs = deepinv.sampling.DDRM(lambda x, sigma: torch_network(x), sigmas=sigmas)

    def run(factor):
        given(factor * draws)
        return from_torch(theirs(to_torch(Y)[None], inpainting(deepinv)))[0]

    np.testing.assert_allclose(run(np.sqrt(2)), ours, atol=1e-5)
    assert np.abs(run(1) - ours).max() > 0.05
    theirs.eps = 0
    np.testing.assert_allclose(run(np.sqrt(2)), ours, atol=1e-10)


def lifted(model):
    """Its tables in float64, which it has in float32."""
    import torch

    alphas = torch.tensor(jd.Schedule.from_config().alphas_cumprod)
    model.sqrt_alphas_cumprod, model.sqrt_1m_alphas_cumprod = alphas.sqrt(), (1 - alphas).sqrt()
    model.reduced_alpha_cumprod = (1 - alphas).sqrt() / alphas.sqrt()
    model.rhos, model.sigmas, model.seq = model.get_noise_schedule(model.sigma)
    model.get_alpha_prod = lambda *_: (1 / alphas.sqrt(), (1 / alphas - 1).sqrt())
    model.get_noise_schedule = lambda sigma: (model.rhos, model.sigmas, model.seq)
    return model


def test_diffpir_counts_lambda_half_and_returns_a_noisy_state(deepinv, given):
    """Its states are DiffPIR's at half its λ; what it returns is the last one, not yet denoised."""
    inputs, count, lambda_ = [], 6, 7.0

    def network(x, sigma):
        inputs.append(x)
        return of_images(x, sigma)

    model = lifted(
        deepinv.sampling.DiffPIR(
            network, deepinv.optim.data_fidelity.L2(), SIGMA, count, zeta=0.3, lambda_=lambda_
        )
    )
    draws = RNG.standard_normal((count, *SHAPE))
    given(draws)
    out = from_torch(model(to_torch(Y)[None], inpainting(deepinv)))[0]
    times = 999 - model.seq.numpy().astype(int)
    steps = jd.Schedule.from_config().steps(times)
    theirs = np.stack([from_torch(x)[0] for x in inputs])
    theirs = (2 * theirs - 1) * steps.now.alpha[:, None, None, None]
    sampler = jd.DiffPIR(Network(), Mask(MASK), Y, SIGMA, lambda_ / 2, 0.3)
    noise = np.concatenate([theirs[:1] / steps.start, draws[1:], draws[:1]])[:, None]
    _, states = jd.sample(sampler, steps, noise=noise, keep=lambda x, info: x)
    np.testing.assert_allclose(np.asarray(states)[: count - 1, 0], theirs[1:], atol=1e-6)
    np.testing.assert_allclose(2 * out - 1, theirs[-1], atol=1e-6)


def test_moment_matching_is_float32(deepinv):
    """The gradient times −σ_t² is MMPS' correction of x̂₀; it computes the network in float32."""
    import torch

    (blur, physics), level = blurred(deepinv), 0.4
    dtypes = []

    def network(x, sigma):
        dtypes.append(x.dtype)
        return torch_network(x)

    fidelity = deepinv.sampling.MomentMatchingDataFidelity(network, cg_max_iter=3, cg_tol=0)
    x = RNG.standard_normal(SHAPE)
    gradient = fidelity.grad(to_torch(x)[None], to_torch(Y)[None], physics, level)
    assert set(dtypes) == {torch.float32}
    sampler = jd.MMPS(Network(decode=Affine(1, 0)), blur, Y, SIGMA, 3)
    c = jax.tree.map(lambda a: a[0], Exploding().steps(np.array([level])))
    moved, info = sampler.step(jnp.asarray(x), c, jd.samplers.Draws(jnp.zeros(SHAPE)))
    found = -(level**2) * from_torch(gradient)[0]
    np.testing.assert_allclose(found, moved - info["x0_hat"], atol=2e-5)


def test_dps_is_a_score(deepinv, monkeypatch):
    """Its gradient is a part of the score, so that a step takes β_t/√α_t of it where the paper takes ζ: with
    `weight` = λ it is our "adaptive" step of scale λ. It runs the network in float32; in float64 every state agrees.
    """
    import torch

    monkeypatch.setattr(torch, "float32", torch.float64)
    blur, physics = blurred(deepinv)
    count, weight = 8, 3.0
    start, draws = RNG.standard_normal(SHAPE), list(RNG.standard_normal((count - 1, *SHAPE)))

    model = deepinv.sampling.DPS(of_images, num_steps=count + 1, weight=weight)
    left = [to_torch(z)[None] for z in draws]
    monkeypatch.setattr(model.solver, "randn_like", lambda x: left.pop(0))
    times = model.solver.timesteps[:-1]
    signal = np.array([float(model.sde.scale_t(t)) for t in times]) ** 2
    betas = 1 - signal[::-1] / np.concatenate([[1], signal[:0:-1]])
    steps = jd.Schedule.from_config({"trained_betas": betas.tolist()}).steps(count)
    _, theirs = model(
        to_torch(Y)[None],
        physics,
        x_init=to_torch(steps.start * start)[None],
        get_trajectory=True,
        denoise_output=False,
    )
    theirs = 2 * from_torch(theirs)[1:, 0] - 1
    noise = np.stack([start, *draws, start])[:, None]

    def ours(**options):
        sampler = jd.DPS(Network(), blur, Y, **options)
        return np.asarray(jd.sample(sampler, steps, noise=noise, keep=lambda x, info: x)[1])[:, 0]

    adaptive = ours(scale=weight, step_size="adaptive")
    np.testing.assert_allclose(adaptive, theirs, atol=1e-8)
    assert np.abs(ours(scale=weight)[:-1] - theirs[:-1]).max() > 0.1


def test_pigdm_takes_its_variance_of_states_for_one_of_images(deepinv, monkeypatch):
    """r² = σ²/(1 + σ²) is for data of variance 1, as states are. `PosteriorDiffusion` gives it the σ of images, half as
    large, and r² is up to four times the paper's. Given the σ that has the right r², its gradient is the paper's.
    """
    import torch

    monkeypatch.setattr(torch, "float32", torch.float64)
    physics = inpainting(deepinv)
    steps = jd.Schedule.from_config().steps([600])
    c = jax.tree.map(lambda a: a[0], steps)
    x = RNG.standard_normal(SHAPE)

    fidelity = deepinv.sampling.PiGDMDataFidelity(of_images)

    def guidance(sigma):
        """Theirs, times the paper's r²·√ᾱ, in the units of states."""
        image = to_torch(x / c.now.alpha / 2 + 0.5)[None]
        sigma = torch.tensor(float(sigma))
        gradient = from_torch(fidelity.grad(image, to_torch(Y)[None], physics, sigma))[0]
        return -c.now.noise * gradient / 2

    plain = jd.DDPM(Network())
    z = jd.samplers.Draws(jnp.zeros(SHAPE))
    sampler = jd.PiGDM(Network(), Mask(MASK), Y, SIGMA, variance="paper")
    ours = sampler.step(jnp.asarray(x), c, z)[0] - plain.step(jnp.asarray(x), c, z)[0]
    quarter = float(c.now.noise) / 4
    np.testing.assert_allclose(guidance(np.sqrt(quarter / (1 - quarter))), ours, atol=1e-8)
    as_it_is = guidance(c.now.sigma / c.now.alpha / 2)
    assert np.abs(as_it_is - ours).max() > 0.1 * np.abs(ours).max()


@pytest.mark.parametrize("recipe", ["blur:motion:17,1", "downsample:4", "mask:0.3,0", "hdr:2"])
def test_the_leaderboard_gives_it_our_cameras(deepinv, recipe):
    """Of pictures: the same measurement, and the same adjoint where it is linear."""
    import torch

    operator = named_operator(recipe, (64, 64))
    image = RNG.random((64, 64, 3)).astype(np.float32)
    physics = with_deepinv.physics(operator, image.shape, SIGMA)
    seen = physics.A(to_torch(image)[None].float())
    ours = np.asarray(operator(image))
    flat = ours if seen.ndim == 2 else np.moveaxis(ours, -1, 0)
    np.testing.assert_allclose(seen.numpy().ravel(), flat.ravel(), atol=1e-6)
    if isinstance(operator, Linear):
        y = torch.rand_like(seen)
        inner = (seen * y).sum(), (to_torch(image).float() * physics.A_adjoint(y)[0]).sum()
        np.testing.assert_allclose(*inner, rtol=1e-5)
