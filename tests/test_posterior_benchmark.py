"""The benchmark of truth: its recursion is the library's scan."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiff as jd
from benchmarks import affine, mixture, posterior
from jaxdiff import data
from jaxdiff.samplers.presets import preset
from jaxdiff.util.pytree import replace_leaf

KEY = jax.random.key(0)


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
    elif name in affine.REPLACING:
        sampler = preset(name).sampler(prior, problem.blur, problem.y, problem.sigma)
        if name == "mmps":
            sampler = dataclasses.replace(sampler, iterations=60)
        elif name == "diffpir":
            sampler = dataclasses.replace(sampler, lambda_=1.0, zeta=0.1)
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
    monkeypatch.setattr(posterior, "validation", lambda cameras: cells)
    posterior.main()
    assert "| mask:0.3,0 | 10 | spectral | 2 |" in (tmp_path / "validation.md").read_text()
    capsys.readouterr()


def test_the_mixture_is_the_papers():
    """Its posterior from the paper's matrix, in its units, against the prior's own in ours."""
    dimension, measured = 8, 2
    prior, operator, y, sigma = mixture.problem(dimension, measured, 0)
    np.testing.assert_allclose(prior.means[0].ravel() * mixture.UNIT, -16)
    np.testing.assert_allclose(prior.covariances * mixture.UNIT**2, 1)
    matrix = np.asarray(operator.matrix) / 2
    values = np.linalg.svd(matrix, compute_uv=False)
    assert 0 < values.min() and values.max() <= 1 and sigma * mixture.UNIT <= values.max()
    v = np.random.default_rng(0).standard_normal(y.shape)
    adjoint = np.asarray(operator.adjoint(v.astype("f"))).ravel()
    np.testing.assert_allclose(adjoint, 2 * matrix.T @ v.ravel(), atol=1e-5)
    # A draw of the mixture, weighted by how it fits: the posterior's mean.
    rng = np.random.default_rng(1)
    means = prior.means.reshape(25, dimension) * mixture.UNIT
    x = means[rng.choice(25, 200_000, p=prior.weights)] + rng.standard_normal((200_000, dimension))
    of_y = mixture.UNIT * (y.ravel() - matrix @ np.ones(dimension))
    log_weights = -0.5 * ((of_y - x @ matrix.T) ** 2).sum(1) / (mixture.UNIT * sigma) ** 2
    weights = np.exp(log_weights - log_weights.max())
    exact = mixture.draw("exact", 0, (prior, operator, y, sigma), 4000, KEY)
    np.testing.assert_allclose(exact.mean(0), weights @ x / weights.sum(), atol=0.15)


def test_sliced_wasserstein():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((400, 3))
    assert mixture.sliced_wasserstein(a, a, rng) == 0
    shifted = mixture.sliced_wasserstein(a, a + np.array([2, 0, 0]), rng, slices=2000)
    assert shifted == pytest.approx(1, abs=0.05)  # the mean of |2·cos|, uniform on the sphere


def test_a_table_of_mixtures(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(mixture, "DIMENSIONS", ((8, (2,)),))
    monkeypatch.setattr(mixture, "CONTESTANTS", (("exact", 0), ("spectral", 5)))
    monkeypatch.setattr(
        "sys.argv", ["mixture", "--problems", "2", "--draws", "50", "--out", str(tmp_path)]
    )
    mixture.main()
    first = (tmp_path / "mixture.md").read_text()
    assert "| 8 | 2 | " in first and len((tmp_path / "mixture.csv").read_text().splitlines()) == 5
    mixture.main()  # from what it wrote
    assert (tmp_path / "mixture.md").read_text() == first
    capsys.readouterr()
