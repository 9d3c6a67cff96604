"""Samplers on every kind of published prior, and the commands that take them."""

import itertools
import json
import pickle
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxdiff as jd
from jaxdiff.restoration import default_sampler
from jaxdiff.samplers import Draws
from tests.checkpoints.published import ADM_FIELDS, KINDS, write

OPTIONS = {"adm": {"config": ADM_FIELDS}, "consistency": {"class_labels": 3}}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return {kind: write(kind, tmp_path_factory.mktemp(kind))[0] for kind in KINDS}


@pytest.fixture(scope="module")
def denoisers(published):
    return {kind: jd.prior(published[kind], **OPTIONS.get(kind, {})) for kind in KINDS}


@pytest.fixture(scope="module")
def tables(denoisers):
    """A covariance of each prior's own levels: the noise's."""

    def table(schedule):
        at = schedule.level(schedule.training_times[[0, 9, 20, 30, 39]])
        ones = np.ones((5, 3, 1, 1), "f") * np.eye(3, dtype="f")
        return jd.SpectralCovariance(ones, np.asarray(at.t), at.signal, 1 / 8)

    return {kind: table(denoiser.schedule) for kind, denoiser in denoisers.items()}


def restored(denoisers, tables, kind, name, shape, operator=None):
    operator = operator or jd.operators.Downsample(2)
    y = np.full((shape[0] // 2, shape[1] // 2, 3), 0.4, "f")
    table = tables[kind] if "spectral" in name else None
    return jd.restore(
        y, operator, 0.05, prior=denoisers[kind], sampler=name, covariance=table, steps=2, n=1
    ).draws


METHODS = ("ddpm", "ddim", "dps", "pigdm", "pigdm-paper", "spectral")
QUICK = {
    *(("ncsn++", name) for name in ("dps", "spectral")),
    *(("edm", "pigdm-paper"), ("flow", "ddim")),
    *(("latent", name) for name in ("pigdm-paper", "spectral")),
}


@pytest.mark.parametrize(
    "kind, name",
    [
        pytest.param(*both, marks=[] if both in QUICK else pytest.mark.slow)
        for both in itertools.product(KINDS, METHODS)
    ],
)
def test_samplers_on_published_priors(kind, name, denoisers, tables):
    """Networks of random weights: what is drawn is an image of the right shape, and finite."""
    denoiser = denoisers[kind]
    shape = denoiser.image_shape
    if kind == "latent" and name in ("pigdm-paper", "spectral"):
        with pytest.raises(TypeError, match=r"prior: of latents, .*\('dps'\) and .*\('pigdm'\)"):
            restored(denoisers, tables, kind, name, shape)
        return
    if name in ("ddpm", "ddim"):
        sampler = jd.DDPM(denoiser) if name == "ddpm" else jd.DDIM(denoiser, 0.5)
        images = jd.sample(sampler, denoiser.schedule.steps(2), key=jax.random.key(0))
    else:
        images = restored(denoisers, tables, kind, name, shape)
    assert images.shape == (1, *shape) and np.isfinite(images).all()
    assert np.min(images) >= 0 and np.max(images) <= 1 and np.std(images) > 0


def test_latents_are_guided_through_their_decoder(denoisers):
    """DPS's step is DDPM's less ∇‖y − A(decode(x̂₀))‖."""
    denoiser, operator = denoisers["latent"], jd.operators.Downsample(2)
    y, x = np.full((8, 8, 3), 0.4, "f"), np.random.default_rng(0).standard_normal((8, 8, 3))
    c = jax.tree.map(lambda a: jnp.asarray(a[1]), denoiser.schedule.steps(4).astype(np.float32))
    zero = Draws(jnp.zeros(x.shape))

    @jax.jit
    def both(denoiser, x):
        def misfit(x):
            return jnp.linalg.norm(y - operator(denoiser.decode(denoiser(x, c.now))))

        guided, _ = jd.DPS(denoiser, operator, y).step(x, c, zero)
        return guided - jd.DDPM(denoiser).step(x, c, zero)[0], jax.grad(misfit)(x)

    moved, gradient = both(denoiser, x.astype("f"))
    np.testing.assert_allclose(moved, -gradient, rtol=1e-3, atol=1e-5)
    assert np.abs(gradient).max() > 1e-3
    assert default_sampler(denoiser, operator, 0.1, None) == "dps"


def photo(path, size):
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def known(folder):
    """As many images as a table wants."""
    folder.mkdir()
    for i in range(64):
        photo(folder / f"{i}.png", 8)


def test_commands_take_ncsnpp(run, published, tmp_path):
    """Calibrated, it is restored with its table."""
    folder = shutil.copytree(published["ncsn++"], tmp_path / "model")
    known(tmp_path / "known")
    image = photo(tmp_path / "photo.png", 8)
    code, out, err = run("calibrate", folder, "known", "--levels", 4)
    assert code == 0, err
    options = ["--model", folder, "--operator", "downsample:2", "--steps", 2, "--samples", 2]
    code, out, err = run("restore", image, "--degrade", *options, "--json", "--out", "r")
    assert code == 0, err
    assert json.loads(out)["settings"]["sampler"] == "spectral"


def test_commands_take_a_file(run, published, tmp_path):
    """guided-diffusion's .pt with what its tensors cannot say, and a table beside it."""
    model = shutil.copy(published["adm"], tmp_path / "a.pt")
    (tmp_path / "adm.json").write_text(json.dumps(ADM_FIELDS))
    options = ["--model", model, "--config", "adm.json"]
    code, _, err = run("sample", "--n", 1, "--steps", 2, *options, "--out", "s.png")
    assert code == 0, err
    known(tmp_path / "known")
    code, _, err = run("calibrate", model, "known", "--levels", 2, "--config", "adm.json")
    assert code == 0 and (tmp_path / "a.spectral_covariance.safetensors").exists(), err
    code, _, err = run("sample", "--n", 1, "--steps", 2, "--model", model)
    assert code == 2 and "num_head_channels: heads of 64" in err
    code, _, err = run("convert", model, "folder", "--config", "adm.json")
    assert code == 0 and jd.load(tmp_path / "folder")[0].config.size == (8, 8), err


def test_commands_take_a_class(run, published, tmp_path):
    model = published["consistency"]
    options = ["--n", 1, "--steps", 1, "--model", model, "--out", "s.png"]
    code, _, err = run("sample", *options, "--class-label", 3)
    assert code == 0, err
    for given, message in (
        ([], "pass the class"),
        (["--class-label", 10], "from 0 to 9"),
        (["--class-label", -1], "from 0 to 9"),
        (["--class-label", "cat"], "integer"),
    ):
        code, _, err = run("sample", *options, *given)
        assert code == 2 and message in err, err
    code, _, err = run("sample", "--n", 1, "--steps", 41, "--model", model, "--class-label", 3)
    assert code == 2 and "1 to 40" in err
    code, _, err = run(
        "sample", "--n", 1, "--steps", 2, "--model", published["edm"], "--class-label", 3
    )
    assert code == 2 and "not class-conditional" in err


def test_commands_take_latents(run, published, tmp_path):
    image = photo(tmp_path / "photo.png", 16)
    options = ["--model", published["latent"], "--operator", "downsample:2", "--steps", 2]
    code, out, err = run("restore", image, "--degrade", *options, "--samples", 1, "--json")
    assert code == 0, err
    assert json.loads(out)["settings"]["sampler"] == "dps"
    code, _, err = run("restore", image, "--degrade", *options, "--sampler", "pigdm-paper")
    assert code == 2 and "of latents" in err and len(err.strip().splitlines()) == 1


def test_one_line_for_what_is_no_prior(run, published, tmp_path):
    """Nothing is executed, and the exit code is 2."""

    class Planted:
        def __reduce__(self):
            return exec, ("open('was-here', 'w')",)

    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Planted()))
    content = published["edm"].read_bytes()
    (tmp_path / "cut.pkl").write_bytes(content[: len(content) // 2])
    no_decoder = shutil.copytree(published["latent"], tmp_path / "latent")
    shutil.rmtree(no_decoder / "vqvae")
    unknown = shutil.copytree(published["ddpm"], tmp_path / "unknown")
    (unknown / "scheduler_config.json").write_text('{"_class_name": "KarrasVeScheduler"}')
    (tmp_path / "other.json").write_text('{"model_channels": 16}')
    (tmp_path / "list.json").write_text("[1]")
    for model, message, *options in (
        ("evil.pt", "evil.pt"),
        ("cut.pkl", "cut.pkl"),
        (no_decoder, "no decoder"),
        (unknown, "KarrasVeScheduler"),
        (published["edm"], "model_channels", "--config", "other.json"),
        (published["adm"], "model_channels", "--config", "other.json"),
        (published["adm"], "list.json", "--config", "list.json"),
        (published["adm"], "absent.json", "--config", "absent.json"),
        ("absent.pt", "absent.pt"),
    ):
        for command in (["sample", "--model", model], ["convert", model, "out"]):
            code, _, err = run(*command, *options)
            assert code == 2 and message in err, err
            assert len(err.strip().splitlines()) == 1 and "Traceback" not in err
    assert not (tmp_path / "was-here").exists() and not (tmp_path / "out").exists()
