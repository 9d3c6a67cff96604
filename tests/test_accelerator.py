"""On an accelerator: the numbers are torch's on the same device, and those of float64 on the CPU.

float32 means float32 here: "highest" in JAX, no TF32 in torch. ACCELERATOR_DRY=1 tries the tests themselves, on a
CPU and small.
"""

import dataclasses
import os
import re
from contextlib import contextmanager
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from flax import nnx

import jaxdiff as jd
from benchmarks.__main__ import CELEBAHQ
from benchmarks.contestants.of_jax import table_for_any
from convert.course import TorchRun
from jaxdiff import data, metrics
from jaxdiff.nn.unet import abstract_unet
from jaxdiff.samplers.presets import preset
from jaxdiff.train import loop as train
from jaxdiff.util.platform import jit
from tests.parity.configs import CONFIGS
from tests.parity.reference import inputs, torch_forward_and_gradient, torch_unet

DRY = "ACCELERATOR_DRY" in os.environ
if not DRY:  # what holds of any device, run on this one
    from tests.test_gaussian_prior import test_spectral_posterior_is_exact  # noqa: F401
    from tests.test_remat import test_half_the_memory  # noqa: F401
    from tests.test_samplers import steps, test_no_retrace  # noqa: F401

pytestmark = pytest.mark.gpu

NETWORK = CONFIGS["base"] | {"downsample_padding": 0} if DRY else CELEBAHQ
STEPS, MANY = (4, 3) if DRY else (20, 32)
SIGMA = 10 / 255
OF_TORCH = ("ddpm", "dps", "dps-adaptive", "pigdm")
METHODS = ("pigdm", "spectral") if DRY else (*OF_TORCH, "ddim", "spectral")
SMALLEST = CONFIGS["base"] | {
    "block_out_channels": (8,),
    "down_block_types": ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",),
    "mid_block_type": None,
}
EVERY = jd.Schedule.from_config().steps(STEPS)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(autouse=True)
def in_float32(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    with jax.default_matmul_precision("highest"), DEVICE:
        yield
    torch.set_float32_matmul_precision(before)


@contextmanager
def on_the_cpu():
    """Our own code as it runs where JAX sees a CPU only."""
    with mock.patch.object(jax, "default_backend", lambda: "cpu"):
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            yield


def relative(a, b):
    a, b = (np.asarray(v, np.float64) for v in (a, b))
    return np.abs(a - b).max() / np.abs(b).max()


@jit
def forward_and_gradient(unet, x, t, weight):
    out, pullback = jax.vjp(lambda x: unet(x, t), x)
    return out, pullback(weight.astype(out.dtype))[0]


@pytest.fixture(scope="module")
def celebahq(tmp_path_factory):
    """torch's network, whose norms and biases are random too, and a folder that has it."""
    folder = tmp_path_factory.mktemp("celebahq")
    model = torch_unet(NETWORK)
    model.save_pretrained(folder)
    DDPMScheduler().save_pretrained(folder)
    return model.to(DEVICE), folder


def test_network(celebahq):
    """Forward and the gradient to x; float64 at a t whose features float32 has to eight digits."""
    model, folder = celebahq
    x, t, _ = inputs(NETWORK)
    weight = np.random.default_rng(1).standard_normal(x.shape)
    ours = forward_and_gradient(jd.load(folder)[0], *(a.astype("f") for a in (x, t, weight)))
    theirs = torch_forward_and_gradient(model, x, t, None, weight)
    with on_the_cpu(), jax.enable_x64(True):
        unet, _ = jd.load(folder, dtype=jnp.float64)
        exact = forward_and_gradient(unet, x[1:], t[1:], weight[1:])
    for what, a, b, c in zip(("output", "gradient"), ours, theirs, exact):
        print(f"{what}: {relative(a, b):.1e} from torch, {relative(a[1:], c):.1e} from float64")
        assert relative(a, b) <= 1e-5
        assert relative(a[1:], c) <= 1e-5


def test_network_in_bfloat16(celebahq):
    model, folder = celebahq
    x, t, _ = inputs(NETWORK)
    unet, _ = jd.load(folder, dtype=jnp.bfloat16)
    ours = forward_and_gradient(unet, x.astype("f"), t.astype("f"), np.ones_like(x))
    theirs = torch_forward_and_gradient(model, x, t, None, np.ones_like(x))
    assert ours[0].dtype == jnp.bfloat16
    assert relative(ours[0], theirs[0]) <= 0.05
    assert relative(ours[1], theirs[1]) <= 0.05


@pytest.fixture(params=["ddpm", "dps", "pigdm", "spectral"])
def name(request):
    """Of `test_no_retrace`, which is about Python for the rest."""
    return request.param


@pytest.fixture(scope="module")
def prior(tiny, tmp_path_factory):
    """A flat folder, for both."""
    if DRY:
        return tiny
    folder = tmp_path_factory.mktemp("faces64")
    jd.save(folder, *jd.load("faces64"))
    return folder


def sampler_of(method, prior, y, dtype=jnp.float32):
    denoiser = jd.Denoiser(*jd.load(prior, dtype=dtype))
    if method in ("ddpm", "ddim"):
        return jd.DDPM(denoiser) if method == "ddpm" else jd.DDIM(denoiser, 0.5)
    blur = jd.operators.Blur(data.motion_kernel(9, seed=0), y.shape[:2])
    # With modulation it draws more than is given, and in float64 other numbers.
    table = dataclasses.replace(table_for_any(), modulation=None)
    return preset(method).sampler(denoiser, blur, y, SIGMA, covariance=table)


def run_of_torch(method, prior, photograph):
    """The course's loop; its first state, noise and measurement serve the others too."""
    unet = UNet2DModel.from_pretrained(prior, low_cpu_mem_usage=False)
    kernel, scheduler = data.motion_kernel(9, seed=0), DDPMScheduler.from_pretrained(prior)
    unet = unet.eval().requires_grad_(False)
    return TorchRun(method, unet, scheduler, photograph, kernel, SIGMA, STEPS)


def state(x, info):
    return x


def one_step(sampler, i, x, z):
    """x after step i: the same program for all i."""
    row = jax.tree.map(lambda a: a[i : i + 1], EVERY)
    noise, key = np.stack([x, z])[:, None], jax.random.key(0)
    _, kept = jd.sample(sampler, row, noise=noise, key=key, keep=state)
    return np.asarray(kept)[0, 0]


@pytest.mark.parametrize("method", METHODS)
def test_sampler(method, prior, photograph):
    """Steps from the same states, and all of them: guidance amplifies rounding, the mean is held."""
    run = run_of_torch(method if method in OF_TORCH else "ddpm", prior, photograph)
    sampler = sampler_of(method, prior, run.y)
    for i in (0, STEPS // 2, STEPS - 1):
        x, z = run.states[i], run.noise[i + 1, 0]
        ours = one_step(sampler, i, x, z)
        with on_the_cpu(), jax.enable_x64(True):
            doubles = (a.astype(np.float64) for a in (x, z))
            exact = one_step(sampler_of(method, prior, run.y, jnp.float64), i, *doubles)
        print(f"{method}, step {i}: {relative(ours, exact):.1e} from float64")
        assert relative(ours, exact) <= 3e-5
        if method in OF_TORCH:
            print(f"{method}, step {i}: {relative(ours, run.step(i)):.1e} from torch")
            assert relative(ours, run.step(i)) <= 3e-5
    x = run.noise[0, 0]
    for i in range(STEPS):
        x = one_step(sampler, i, x, run.noise[i + 1, 0])
    image = np.asarray(jd.sample(sampler, EVERY, noise=run.noise, key=jax.random.key(0)))[0]
    close(image, np.clip(x, -1, 1) / 2 + 0.5, photograph, f"{method}, the compiled loop")
    if method in OF_TORCH:
        close(image, np.clip(run.states[-1], -1, 1) / 2 + 0.5, photograph, f"{method}, torch")


def close(image, other, photograph, what):
    difference = metrics.psnr(image, photograph) - metrics.psnr(other, photograph)
    mean = np.abs(image - other).mean()
    print(f"{what}: mean |Δ| {mean:.1e}, PSNR {difference:+.3f} dB")
    assert mean <= 5e-3 and abs(difference) <= 0.1


@pytest.mark.parametrize(
    "method", ["dps", "spectral"] if DRY else ["ddpm", "dps", "pigdm", "spectral"]
)
def test_one_sample_or_many(method, prior, photograph):
    """Convolutions of another batch round differently: by so much in a step, by so much in all."""
    sampler = sampler_of(method, prior, photograph)

    def draw(n):
        key = jax.random.key(0)
        images, states = jd.sample(sampler, EVERY, key=key, n=n, keep=state)
        return np.asarray(images)[0], np.asarray(states)[0, 0]

    (alone, first), (among, first_among) = draw(1), draw(MANY)
    print(f"{method}: after one step {relative(first, first_among):.1e}")
    assert relative(first, first_among) <= 1e-5
    close(alone, among, photograph, f"{method}, n = 1 and {MANY}")


def test_no_float64_by_accident(prior, photograph):
    """Where JAX would allow it, no image and no feature is: only tables and numbers, until they are used."""
    sampler = sampler_of("pigdm", prior, photograph)
    noise = np.zeros((STEPS + 1, 1, *photograph.shape), "f")
    with jax.enable_x64(True):
        program = jax.jit(lambda sampler, noise: jd.sample(sampler, EVERY, noise=noise))
        text = program.lower(sampler, noise).as_text()
    assert not re.findall(r"tensor<(?:\d+x){3,}f64>", text)
    assert "f32" in text


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)


def updated(dtype, pixels, monkeypatch):
    """A training step's loss, and by how much it moves the weights; where Adam shows a wrong gradient."""
    monkeypatch.setattr(train, "training_dtype", lambda: dtype)
    graph, shapes = nnx.split(abstract_unet(jd.UNet2DConfig.from_dict(SMALLEST)))
    rng = np.random.default_rng(0)
    before = jax.tree.map(lambda w: 0.1 * rng.standard_normal(w.shape).astype("f"), shapes)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2, eps=1e-3))
    levels = jnp.asarray(jd.Schedule.from_config().alphas_cumprod, jnp.float32)

    def step(before, pixels):
        state = train.State(jnp.zeros((), jnp.int32), before, before, optimizer.init(before))
        return train.update(
            graph, optimizer, 0.9, 0, 1.0, levels, state, pixels, small=False, at_once=4
        )

    state, loss = jit(step)(before, pixels)
    assert all(p.dtype == jnp.float32 for p in jax.tree.leaves((state.params, state.ema)))
    moved = jax.tree.map(lambda a, b: (np.asarray(a) - b).ravel(), state.params, before)
    return float(loss), np.concatenate(jax.tree.leaves(moved))


def test_training_update(pixels, monkeypatch):
    """Against the CPU's, which is torch's (test_train); and what bfloat16 changes."""
    with on_the_cpu():
        expected, moved = updated(jnp.float32, pixels, monkeypatch)
    loss, here = updated(jnp.float32, pixels, monkeypatch)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert np.abs(here - moved).max() <= 2e-5
    loss, here = updated(jnp.bfloat16, pixels, monkeypatch)
    assert loss == pytest.approx(expected, rel=0.02)
    assert 0 < np.linalg.norm(here - moved) <= 0.2 * np.linalg.norm(moved)
