"""The leaderboard's own arithmetic; its rows are measured by `python -m benchmarks.leaderboard`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import jaxdiff as jd
from benchmarks import leaderboard, phase, posterior, with_azula
from benchmarks.leaderboard import Problem
from jaxdiff.commands.cameras import operator as named_operator
from jaxdiff.operators import Affine, Linear, PhaseRetrieval
from jaxdiff.samplers.presets import preset

FACE = next(iter(jd.data.faces().values()))


def test_of_several_phases_the_nearest_amplitudes_count_upright():
    """The truth turned by half has its amplitudes; a better PSNR with other amplitudes does not win."""
    operator = PhaseRetrieval(2)
    y = np.asarray(operator(FACE))
    near = np.clip(FACE + 0.02, 0, 1)
    one = Problem("phase retrieval", operator, jd.noise.Gaussian(0.05), y, FACE, 0)
    found = leaderboard.score(one, np.stack([near, FACE[::-1, ::-1]]))
    assert found["psnr_draw"] > 100 and found["ssim"] == pytest.approx(1)


def test_hybrid_input_output_finds_the_amplitudes():
    y = np.asarray(PhaseRetrieval(2)(FACE))
    far, near = (
        np.linalg.norm(
            np.asarray(PhaseRetrieval(2)(phase.hybrid_input_output(y, FACE.shape, n))) - y
        )
        for n in (1, 400)
    )
    assert near < 0.2 * far


def test_methods_are_plotted_on_the_faces_that_all_of_them_have():
    """Some faces are harder; and what one method alone has been tried on compares nothing."""
    measured = (("×4", "ddrm", (0, 1, 2)), ("×4", "ddnm", (1, 2, 3)), ("HDR", "spectral", (0,)))
    rows = [{"task": t, "method": m, "image": i} for t, m, images in measured for i in images]
    found = [(r["method"], r["image"]) for r in leaderboard.shared(rows)]
    assert found == [("ddrm", 1), ("ddrm", 2), ("ddnm", 1), ("ddnm", 2)]


def test_draws_are_scored_as_metrics_say():
    rng = np.random.default_rng(0)
    draws = np.clip(FACE + 0.05 * rng.standard_normal((9, *FACE.shape)), 0, 1)
    one = Problem("×4", None, None, FACE, FACE, 0)
    found = leaderboard.score(one, draws)
    single = np.mean([jd.metrics.psnr(x, FACE) for x in draws])
    assert found["psnr_draw"] == pytest.approx(single) and found["psnr_mean"] > single + 5
    calibrated = jd.metrics.calibration(draws[None], FACE[None])
    ratio = np.sqrt(found["error"] / found["spread"])
    assert ratio == pytest.approx(calibrated["error_over_spread"], rel=1e-6)


@jd.pytree
class Counted(jd.Prior):
    """x̂₀ = tanh(x_t/α_t), which notes when it is evaluated, and when differentiated."""

    decode: Any = Affine(0.5, 0.5)
    shape = (8, 8, 1)
    schedule = jd.Schedule.from_config()

    def __call__(self, x, at):
        return counted(x / at.alpha)


NOTED: list[str] = []


@jax.custom_vjp
def counted(z):
    jax.debug.callback(lambda _: NOTED.append("evaluation"), z[0, 0, 0])
    return jnp.tanh(z)


def forwards(z):
    return counted(z), z


def backwards(z, v):
    jax.debug.callback(lambda _: NOTED.append("gradient"), v[0, 0, 0])
    return (v * (1 - jnp.tanh(z) ** 2),)


counted.defvjp(forwards, backwards)


@pytest.mark.parametrize("name", [n for n in leaderboard.OURS if not n.startswith("spectral")])
def test_a_price_is_what_is_evaluated_and_differentiated(name):
    mask = jd.operators.Mask(np.arange(64).reshape(8, 8) % 3 > 0)
    y = np.asarray(mask.project(np.random.default_rng(0).random((8, 8, 1))), np.float32)
    sampler = preset(name).sampler(Counted(), mask, y, 1e-3)
    steps = 3
    NOTED.clear()
    jax.block_until_ready(jd.sample(sampler, sampler.steps(steps), key=jax.random.key(0)))
    jax.effects_barrier()
    found = NOTED.count("evaluation"), NOTED.count("gradient")
    assert found == posterior.price(name, steps)


def test_every_method_has_a_price_and_a_row(tmp_path):
    row = {"task": "×4", "image": 0, "psnr_draw": 20.0, "psnr_mean": 21.0, "ssim": 0.5}
    row |= {"coverage": 0.8, "error": 0.01, "spread": 0.01, "seconds": 1.0}
    rows = [row | {"method": name} for name in (*leaderboard.OURS, *leaderboard.PEERS)]
    text = leaderboard.table(rows)
    assert len(text.splitlines()) == 2 + len(rows)
    assert "| spectral | 1 | 20.00 | 21.00 | 0.500 | 1.00 | 0.800 | 10 + 0 | 1.00 |" in text
    assert leaderboard.cost("deepinv ddrm") == leaderboard.cost("ddrm") == (20, 0)
    assert leaderboard.cost("azula mmps") == leaderboard.cost("mmps") == (100, 200)
    leaderboard.plot(rows).savefig(tmp_path / "plot.png")


def test_a_peer_that_is_not_installed_is_a_line(tmp_path, monkeypatch):
    def missing(name, *_):
        raise ModuleNotFoundError("No module named 'deepinv'")

    monkeypatch.setattr(leaderboard, "draws_of", missing)
    rows = leaderboard.run(tmp_path / "rows.csv", FACE[None], ["HDR"], ["deepinv dps"], 1)
    assert rows == [] and not (tmp_path / "rows.csv").exists()


@pytest.mark.parametrize("recipe", ["blur:motion:17,1", "downsample:4", "hdr:2"])
def test_peers_get_our_cameras_with_the_derivatives_of_both_modes(recipe):
    operator = named_operator(recipe, FACE.shape[:2])
    x = np.moveaxis(FACE, -1, 0)[None].astype(np.float32)
    v = np.random.default_rng(0).standard_normal(x.shape).astype(np.float32)

    def flat(x):
        return operator(jnp.moveaxis(x[0], 0, -1)).ravel()[None]

    y, tangent = jax.jvp(flat, (x,), (v,))
    camera = with_azula.camera(operator, images=False)
    found, forward = torch.func.jvp(camera, (torch.tensor(x),), (torch.tensor(v),))
    np.testing.assert_allclose(found, y, atol=1e-6)
    np.testing.assert_allclose(forward, tangent, atol=1e-6)
    leaf = torch.tensor(x, requires_grad=True)
    camera(leaf).square().sum().backward()
    gradient = jax.grad(lambda x: (flat(x) ** 2).sum())(x)
    np.testing.assert_allclose(leaf.grad, gradient, atol=1e-6)
    if isinstance(operator, Linear):
        back = with_azula.adjoint(operator, FACE.shape)(found)
        np.testing.assert_allclose(back, gradient / 2, atol=1e-6)
