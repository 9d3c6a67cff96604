"""What a name of a sampler stands for, and which one is chosen where none is named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiff as jd
from jaxdiff.denoiser import as_prior
from jaxdiff.operators import HDR, Blur, Mask, PhaseRetrieval, UnknownBlur
from jaxdiff.operators.base import as_operator
from jaxdiff.restoration import default_sampler
from jaxdiff.samplers.presets import NAMES, PRESETS, preset
from tests.test_samplers import COVARIANCE, Toy


def test_sampler_names():
    prior = jd.priors.Gaussian(np.full((8, 8), 0.1), jd.Schedule.from_config())
    blur, y = jd.operators.Blur(np.ones((3, 3)) / 9, (8, 8)), np.zeros((8, 8, 1))
    mask = jd.operators.Mask(np.eye(8) < 1)
    cameras = {"repaint": mask, "blind": jd.operators.UnknownBlur(3)}
    made = {
        n: preset(n).sampler(
            prior, cameras.get(n, blur), y, 0.1,
            covariance=prior.covariance if preset(n).needs_table else None,
        )
        for n in NAMES
    }  # fmt: skip
    assert [type(s).__name__ for s in made.values()] == [
        *("SpectralPosterior", "SpectralPosterior", "PiGDM", "PiGDM", "DPS", "DPS"),
        *("DiffPIR", "DDRM", "DDNM", "MMPS", "DAPS", "PnPDM", "TMPD", "REDDiff", "SITCOM"),
        *("FastDIPS", "RePaint", "TDS", "Blind"),
    ]
    assert [made[n].jacobian for n in ("spectral", "spectral-jacobian")] == [False, True]
    assert (made["pigdm-paper"].variance, made["pigdm"].variance) == ("paper", "course")
    assert (made["dps"].step_size, made["dps-adaptive"].step_size) == ("fixed", "adaptive")
    with pytest.raises(ValueError, match="covariance"):
        preset("spectral").sampler(prior, blur, y, 0.1)
    with pytest.raises(ValueError, match="scale"):
        preset("spectral").sampler(prior, blur, y, 0.1, 2.0, prior.covariance)
    with pytest.raises(ValueError, match="expected one of spectral"):
        preset("ddim").sampler(prior, blur, y, 0.1)


def test_presets():
    toy, y = Toy(np.float32(1)), np.full((8, 8, 3), 0.5, np.float32)
    blur = Blur(np.ones((3, 3)) / 9, (8, 8))
    assert set(NAMES) == set(PRESETS)
    cameras = {"repaint": Mask(np.eye(8) < 1), "blind": jd.operators.UnknownBlur(3)}
    for name, row in PRESETS.items():
        camera = cameras.get(name, blur)
        sampler = row.sampler(
            toy, camera, y, 0.1, covariance=COVARIANCE if row.needs_table else None
        )
        assert isinstance(sampler, row.method) and row.steps >= 10, name
    assert PRESETS["dps"].steps == 1000
    with pytest.raises(ValueError, match="expected one of spectral"):
        preset("dps-adaptve")
    with pytest.raises(ValueError, match="jaxdiff calibrate"):
        PRESETS["spectral"].sampler(toy, blur, y, 0.1)


def test_restore_chooses_by_what_there_is(tiny):
    photograph = jd.data.example()
    blur = Blur(jd.data.motion_kernel(9, 0), (64, 64))
    y = np.asarray(blur(photograph))
    restored = jd.restore(y, blur, 10 / 255, prior=tiny, n=2, steps=2)
    assert restored.sampler == "spectral" and restored.draws.shape == (2, 64, 64, 3)
    np.testing.assert_allclose(restored.mean, restored.draws.mean(0), atol=1e-6)
    assert restored.std is not None and restored.std.shape == photograph.shape
    assert jd.restore(y, blur, 0.1, prior=tiny, n=1, steps=2).std is None
    denoiser = jd.Denoiser(*jd.load(tiny))
    assert jd.restore(y, blur, 0.1, prior=denoiser, n=1, steps=2).sampler == "pigdm-paper"
    squared = jd.restore(photograph**2, lambda x: x**2, 0.1, prior=denoiser, n=1, steps=2)
    assert squared.sampler == "dps"
    batch = jd.restore(np.stack([y, y]), blur, 0.1, prior=tiny, n=2, steps=2)
    assert batch.mean.shape == (2, 64, 64, 3)


def test_the_default_of_each_kind_of_camera_and_noise():
    """With a table and without."""

    @jd.pytree
    class Cauchy(jd.noise.Noise):
        def log_prob(self, y, mean):
            return -jnp.log1p((y - mean) ** 2).sum()

        def draw(self, key, mean):
            return mean + jax.random.cauchy(key, mean.shape)

    toy, blur, phase = (
        as_prior(Toy(np.float32(1))),
        Blur(np.ones((3, 3)) / 9, (8, 8)),
        PhaseRetrieval(2),
    )
    poisson, hdr = jd.noise.Poisson(100), HDR(2)
    for operator, sigma, with_table, without in (
        (blur, 0.1, "spectral", "pigdm-paper"),
        (blur, jd.noise.Gaussian(0.1), "spectral", "pigdm-paper"),
        (blur, poisson, "spectral", "dps"),
        (hdr, 0.1, "spectral", "dps"),
        (hdr @ blur, poisson, "spectral", "dps"),
        (as_operator(lambda x: x**2), 0.1, "spectral", "dps"),
        (phase, 0.1, "daps", "daps"),
        (phase @ blur, 0.1, "daps", "daps"),
        (UnknownBlur(3), 0.1, "blind", "blind"),
        (blur, Cauchy(), "dps", "dps"),
    ):
        assert default_sampler(toy, operator, sigma, COVARIANCE) == with_table
        assert default_sampler(toy, operator, sigma, None) == without
