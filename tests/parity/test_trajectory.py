"""DDPM, DPS and ΠGDM against the course's torch loop, with the same noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiff as jd
from convert.course import TorchRun, load_prior
from convert.lift import lifted_time_embedding
from jaxdiff import data, metrics
from jaxdiff.checkpoints.sources import finder
from jaxdiff.samplers import Draws
from jaxdiff.util import platform
from jaxdiff.util.platform import jit

STEPS = 100
SIGMA = 10 / 255
METHODS = {
    "ddpm": lambda d, b, y: jd.DDPM(d),
    "dps": lambda d, b, y: jd.DPS(d, b, y, scale=1.0),
    "dps-adaptive": lambda d, b, y: jd.DPS(d, b, y, scale=100.0, step_size="adaptive"),
    "pigdm": lambda d, b, y: jd.PiGDM(d, b, y, SIGMA),
}


@pytest.fixture(scope="module")
def torch_prior():
    return load_prior(finder("faces64")("model_index.json").parent)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("count", [20, pytest.param(STEPS, marks=pytest.mark.slow)])
def test_same_function_in_float64(count, method, torch_prior, kernel, x64):
    """The network is convolutional: half the size is the same function, at a fourth of the time."""
    size = 32
    photograph = data.example(size)
    with lifted_time_embedding():
        run = TorchRun(method, *torch_prior, photograph, kernel, SIGMA, count, "float64", lift=True)
    unet, schedule = jd.load("faces64", dtype=jnp.float64)
    blur = jd.operators.Blur(kernel, (size, size))
    prior = jd.priors.of_size(jd.Denoiser(unet, schedule), (size, size))
    sampler = METHODS[method](prior, blur, run.y)
    images, kept = jd.sample(
        sampler, schedule.steps(count), noise=run.noise, keep=lambda x, info: x
    )
    assert images.dtype == jnp.float64
    difference = np.abs(np.asarray(kept)[:, 0] - run.states[1:]).max()
    print(f"{method}: max |Δ| over {count} states: {difference:.1e}")
    assert difference <= 1e-8
    final = np.clip(run.states[-1], -1, 1) / 2 + 0.5
    assert np.abs(np.asarray(images)[0] - final).max() <= 1e-8


@pytest.fixture(
    params=[pytest.param(m, marks=pytest.mark.slow if m == "dps-adaptive" else ()) for m in METHODS]
)
def float32_run(request, torch_prior, photograph, kernel):
    """diffusers as it is, nothing lifted."""
    return TorchRun(request.param, *torch_prior, photograph, kernel, SIGMA, STEPS, "float32")


def sampler_of(run, kernel, faces64):
    unet, schedule = faces64
    blur = jd.operators.Blur(kernel, (64, 64))
    return METHODS[run.method](jd.Denoiser(unet, schedule), blur, run.y), schedule.steps(STEPS)


def check_single_steps(run, step, sampler, steps):
    """From the same state, the reference's tables lifted: in float32 its 1 − ᾱ has four digits.

    But for the first step of ΠGDM and adaptive DPS: at t = 990 the guidance of a state that is
    noise moves ΠGDM to |x| = 9 through 1/√ᾱ = 145, and torch's own float32 step is 8e-5 from its
    float64 one. There both are compared with that: ours may not be three times as far from it.
    """
    rows = steps.astype(jnp.float32)
    for i in (0, 1, 10, 50, 90, 98, 99):
        c = jax.tree.map(lambda a, i=i: a[i], rows)
        expected, bound = run.step(i), 1e-5
        if i == 0 and run.method in ("dps-adaptive", "pigdm"):
            with lifted_time_embedding():
                exact = run.step(i, exact=True)
            bound, expected = 3 * np.abs(expected - exact).max(), exact
            print(f"{run.method}, step 0: torch is {bound / 3:.1e} from its float64 step")
        difference = np.abs(step(sampler, run.states[i], c, run.noise[i + 1, 0]) - expected).max()
        print(f"{run.method}, step {i}: {difference:.1e} of {np.abs(expected).max():.1f}")
        assert difference <= bound, f"step {i}"


def check_trajectory(run, step, sampler, steps, photograph):
    """A loop over the step that the single steps use: the float64 test has the compiled scan."""
    x, rows = jnp.asarray(run.noise[0, 0]), steps.astype(jnp.float32)
    for i in range(STEPS):
        x = step(sampler, x, jax.tree.map(lambda a, i=i: a[i], rows), run.noise[i + 1, 0])
    image = np.clip(np.asarray(x), -1, 1) / 2 + 0.5
    reference = np.clip(run.states[-1], -1, 1) / 2 + 0.5
    difference = metrics.psnr(image, photograph) - metrics.psnr(reference, photograph)
    mean = np.abs(image - reference).mean()
    print(f"{run.method}: mean |Δ| {mean:.1e}, PSNR {difference:+.3f} dB")
    assert mean <= 5e-3
    if run.method != "ddpm":
        assert abs(difference) <= 0.1


def test_in_float32(float32_run, photograph, kernel, faces64):
    sampler, steps = sampler_of(float32_run, kernel, faces64)
    step = jax.jit(
        lambda sampler, x, c, z: sampler.step(x, c, Draws(z))[0],
        compiler_options=platform.compiler_options(),
    )
    check_trajectory(float32_run, step, sampler, steps, photograph)
    check_single_steps(float32_run, step, sampler, steps)


@pytest.mark.gpu
def test_accelerator(float32_run, kernel, faces64):
    """At highest precision: steps from the same state, looser than on the CPU by a digit."""
    run = float32_run
    sampler, steps = sampler_of(run, kernel, faces64)
    rows = steps.astype(jnp.float32)
    step = jit(lambda sampler, x, c, z: sampler.step(x, c, Draws(z))[0])
    with jax.default_matmul_precision("highest"):
        for i in (0, 50, 99):
            c = jax.tree.map(lambda a, i=i: a[i], rows)
            expected = run.step(i)
            x = np.asarray(step(sampler, run.states[i], c, run.noise[i + 1, 0]))
            assert np.abs(x - expected).max() <= 1e-4 * np.abs(expected).max(), f"step {i}"
