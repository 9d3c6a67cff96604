"""The benchmark of truth: its recursion is the library's scan."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiff as jd
from benchmarks import affine, posterior
from jaxdiff import data
from jaxdiff.pytree import replace_leaf

pytestmark = pytest.mark.usefixtures("hurried")


@pytest.mark.parametrize("name", (*posterior.LINEAR, "ddpm", "ddpm-covariance", "ddim"))
def test_recursion_is_the_scan(name, x64):
    """The same noise through both, in float64, every step: the sampler's law is what is claimed.

    The photograph's mean is 0 and its power small, so that nothing is clipped, where ΠGDM
    would not be affine.
    """
    problem = affine.example(16)
    prior = replace_leaf(problem.prior, spectrum=problem.prior.spectrum / 10)
    problem = problem._replace(prior=prior, y=0.5 + (problem.y - 0.5) / 4)
    steps = prior.schedule.steps(10, "trailing")
    if name.startswith("spectral"):
        draw = name == "spectral"
        sampler = jd.SpectralPosterior(
            prior, problem.blur, problem.y, problem.sigma, prior.covariance, draw
        )
    elif name == "ddim":
        sampler = jd.DDIM(prior)
    elif name.startswith("ddpm"):
        sampler = jd.DDPM(prior, prior.covariance if "covariance" in name else None)
    else:
        variance = "paper" if name == "pigdm-paper" else "course"
        sampler = jd.PiGDM(prior, problem.blur, problem.y, problem.sigma, variance=variance)
    noise = 0.3 * np.random.default_rng(1).standard_normal((11, 1, 16, 16, 1))
    _, kept = jd.sample(
        sampler, steps, noise=noise, keep=lambda x, info: (x, jnp.abs(info["x0_hat"]).max())
    )
    assert kept[1].max() < 1, "nothing may be clipped"
    x = np.fft.fft2(noise[0, 0, ..., 0], norm="ortho")
    for i in range(10):
        f, g, w = affine.coefficients(name, problem, affine.row(steps, i))
        x = f * x + g * problem.y_hat + w * np.fft.fft2(noise[i + 1, 0, ..., 0], norm="ortho")
        state = np.fft.ifft2(x, norm="ortho").real
        np.testing.assert_allclose(kept[0][i, 0, ..., 0], state, atol=1e-6)


def test_the_spectral_posterior_is_exact_and_the_others_are_not():
    problem = affine.example(16)
    for count in (1, 5, 100):
        steps = problem.prior.schedule.steps(count, "trailing")
        found = affine.compare("spectral", problem, steps)
        assert found["mean_error"] < 1e-3 and found["wasserstein"] < 1e-2
        assert found["spread_ratio"] == pytest.approx(1, abs=1e-3)
    assert affine.compare("spectral-mean", problem, steps)["spread_ratio"] < 0.9
    assert affine.compare("pigdm", problem, steps)["wasserstein"] > 0.1


def test_calibration_of_what_is_calibrated():
    """Draws and truth from one law, another one for each image: 1, and nominal coverage."""
    rng = np.random.default_rng(0)
    mean = rng.random((20, 1, 16, 16, 3))
    draws = mean + 0.1 * rng.standard_normal((20, 10, 16, 16, 3))
    found = jd.metrics.calibration(draws[:, 1:], draws[:, 0])
    assert found["error_over_spread"] == pytest.approx(1, abs=0.03)
    assert found["error_over_spread_by_band"] == pytest.approx([1] * 4, abs=0.1)
    assert found["coverage"] == pytest.approx(found["coverage_nominal"], abs=0.02) == 0.8
    clipped = np.clip(draws, 0.4, 0.6)  # most pixels tie: they count by lot
    found = jd.metrics.calibration(clipped[:, 1:], clipped[:, 0])
    assert found["coverage"] == pytest.approx(0.8, abs=0.02)
    sure = jd.metrics.calibration(mean + (draws[:, 1:] - mean) / 2, draws[:, 0])
    assert sure["error_over_spread"] > 1.5 and sure["coverage"] < 0.6
    with pytest.raises(ValueError, match="n ≥ 2"):
        jd.metrics.calibration(draws[:, :1], draws[:, 0])


def test_quick_run(tmp_path, monkeypatch, capsys):
    """`python -m benchmarks.posterior --quick`, and again from what it wrote."""
    arguments = ["posterior", "--quick", "--draws", "2", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", arguments)
    monkeypatch.setattr(posterior, "COUNTS", (5,))
    cells = [posterior.Cell("mask:0.3,0", 10, "spectral", 2)]
    monkeypatch.setattr(posterior, "grid", lambda quick: cells)
    posterior.main()
    first = (tmp_path / "results.md").read_text()
    assert "| mask:0.3,0 | 10 | spectral | 2 |" in first and (tmp_path / "posterior.png").exists()
    posterior.main()
    assert (tmp_path / "results.md").read_text() == first
    folder = tmp_path / "photographs"
    folder.mkdir()
    data.write_image(folder / "a.png", data.example())
    more = ["--images", "1", "--validation", str(folder)]
    monkeypatch.setattr("sys.argv", [a for a in arguments if a != "--quick"] + more)
    monkeypatch.setattr(posterior, "VALIDATION", cells)
    posterior.main()
    assert "| mask:0.3,0 | 10 | spectral | 2 |" in (tmp_path / "validation.md").read_text()
    capsys.readouterr()
