"""What holds of the trained network only: rounding that is amplified, and time."""

import time

import jax
import numpy as np
import pytest

import jaxdiff as jd
from jaxdiff import data, metrics

pytestmark = pytest.mark.usefixtures("optimised")
KEY = jax.random.key(0)


def test_real_prior_is_invariant_too(faces64, photograph, kernel):
    """Where rounding is amplified: a guided float32 trajectory of the trained network."""
    unet, schedule = faces64
    operator = jd.operators.Blur(kernel, (64, 64))
    y = np.asarray(operator(photograph))
    sampler = jd.DPS(jd.Denoiser(unet, schedule), operator, y)
    steps = schedule.steps(12)
    one = jd.sample(sampler, steps, key=KEY, n=1)
    four = jd.sample(sampler, steps, key=KEY, n=4, batch_size=3)
    np.testing.assert_allclose(one, four[:1], atol=1e-5)
    devices = jax.devices()[:8]
    mesh = jax.sharding.Mesh(np.array(devices), ("samples",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("samples"))
    spread = jd.sample(sampler, steps, key=KEY, n=4, sharding=sharding)
    np.testing.assert_allclose(four, spread, atol=1e-5)


@pytest.mark.slow
def test_a_guided_step_costs_at_most_two_and_a_half_plain_ones(faces64, photograph, kernel):
    """Both inside their compiled scans, interleaved, the best of 7 to 35 turns each.

    Another test runs beside it: where the best of few are not within the bounds, there are more.
    The trap of jax#12868 is a ratio of 9.
    """
    unet, schedule = faces64
    denoiser = jd.Denoiser(unet, schedule)
    operator = jd.operators.Blur(kernel, (64, 64))
    y = np.asarray(operator(photograph))
    steps = schedule.steps(5)
    samplers = {
        "ddpm": jd.DDPM(denoiser),
        "dps": jd.DPS(denoiser, operator, y),
        "pigdm": jd.PiGDM(denoiser, operator, y, 0.1),
        "spectral": jd.SpectralPosterior(
            denoiser, operator, y, 0.1, jd.SpectralCovariance.load("faces64")
        ),
    }
    best = dict.fromkeys(samplers, np.inf)
    bounds = {"dps": 2.5, "pigdm": 2.5, "spectral": 1.15}
    for turn in range(36):
        for n, sampler in samplers.items():
            start = time.perf_counter()
            jax.block_until_ready(jd.sample(sampler, steps, key=KEY))
            if turn:  # the first compiles
                best[n] = min(best[n], time.perf_counter() - start)
        if turn >= 7 and all(best[n] <= bound * best["ddpm"] for n, bound in bounds.items()):
            break
    else:
        raise AssertionError({n: f"{1e3 * t / 5:.0f} ms" for n, t in best.items()})


def test_spectral_posterior_is_calibrated_in_ten_evaluations(faces64):
    """Four faces that neither prior nor table has seen, six draws each, a camera shake."""
    unet, schedule = faces64
    images = np.stack(list(data.faces().values())[:4])
    blur, sigma = jd.operators.Blur(data.motion_kernel(17, seed=1), (64, 64)), 10 / 255
    y = np.asarray(blur(images)) + sigma * np.random.default_rng(0).standard_normal(images.shape)
    covariance = jd.SpectralCovariance.load("faces64")
    sampler = jd.SpectralPosterior(jd.Denoiser(unet, schedule), blur, y, sigma, covariance)
    samples = np.asarray(jd.sample(sampler, schedule.steps(10), key=KEY, n=6))
    found = metrics.calibration(samples, images)
    means = [metrics.psnr(s.mean(0), x) for s, x in zip(samples, images)]
    wiener = [metrics.psnr(metrics.wiener(m, blur, sigma), x) for m, x in zip(y, images)]
    print(found, np.mean(means), np.mean(wiener))
    assert 0.85 <= found["error_over_spread"] <= 1.2
    assert abs(found["coverage"] - found["coverage_nominal"]) <= 0.06
    assert np.mean(means) >= np.mean(wiener) + 3
