"""`jd.prior`: every format that people publish, told by its content, or refused in one line."""

import json
import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import ConsistencyModelPipeline, ScoreSdeVePipeline, UNet2DModel, VQModel
from diffusers.pipelines.deprecated import LDMPipeline
from safetensors.torch import load_file, save_file

import jaxdiff as jd
from jaxdiff.checkpoints.formats import convert
from jaxdiff.covariance.table import FILE
from jaxdiff.nn.vq import VQConfig
from jaxdiff.priors import LatentDecoder
from jaxdiff.schedules import (
    ConsistencySchedule,
    DDPMSchedule,
    EDMSchedule,
    FlowSchedule,
    VESchedule,
)
from tests.checkpoints.published import ADM_FIELDS, KINDS, VQ, write
from tests.parity.reference import nchw

SCHEDULES = {
    "ddpm": DDPMSchedule,
    "adm": DDPMSchedule,
    "ncsn++": VESchedule,
    "consistency": ConsistencySchedule,
    "edm": EDMSchedule,
    "flow": FlowSchedule,
    "latent": DDPMSchedule,
}
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return {kind: write(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


def options(kind):
    return {
        "config": ADM_FIELDS if kind == "adm" else None,
        "class_labels": 3 if kind == "consistency" else None,
    }


def torch_x0(kind, network, x, t, sigma):
    """x̂₀ by the formulas of the papers, before clipping."""
    x = nchw(x[None])
    call = partial(network, class_labels=torch.tensor([3])) if kind == "consistency" else network

    def run(x, t):
        out = call(x, torch.tensor([t]).to(x.dtype))
        return getattr(out, "sample", out)

    with torch.no_grad():
        if kind in ("ddpm", "adm", "latent"):
            return (x - sigma * run(x, t)[:, :3]) / np.sqrt(1 - sigma**2)
        if kind == "ncsn++":
            return x + sigma**2 * run(x, sigma)
        if kind == "flow":
            return x - sigma * run(x, t)
        total = sigma**2 + 0.25
        out = run(x / total**0.5, t)
        if kind == "edm":
            return 0.25 / total * x + sigma * 0.5 / total**0.5 * out
        near = sigma - 0.002
        return 0.25 / (near**2 + 0.25) * x + near * 0.5 / total**0.5 * out


@pytest.mark.parametrize("kind", KINDS)
def test_what_it_is_and_what_it_predicts(kind, published):
    path, network = published[kind]
    denoiser = jd.prior(str(path), **options(kind))
    schedule = denoiser.schedule
    assert type(schedule) is SCHEDULES[kind] and denoiser.shape == (8, 8, 3)
    assert denoiser.image_shape == ((16, 16, 3) if kind == "latent" else (8, 8, 3))
    if kind != "latent":
        grey = denoiser.decode(jnp.zeros((8, 8, 3)))
        assert np.all(grey == (0 if kind == "ncsn++" else 0.5))
    t = schedule.steps(4).t[2]
    at = schedule.level(t)
    x = np.asarray(0.3 * at.alpha + at.sigma * np.random.default_rng(0).standard_normal((8, 8, 3)))
    found = jax.jit(type(denoiser).predict)(denoiser, x.astype("f"), jax.tree.map(np.float32, at))
    expected = torch_x0(kind, network, x.astype("f"), float(t), float(at.sigma))
    expected = schedule.bounded(jnp.asarray(expected[0].permute(1, 2, 0).numpy()))
    np.testing.assert_allclose(found.x0_hat, expected, atol=3e-5 * float(abs(expected).max()))
    if kind == "adm":  # learn_sigma
        assert found.fraction.shape == (8, 8, 3)


def test_the_pair_is_the_same_to_the_bits(published):
    for kind in ("ddpm", "ncsn++", "consistency", "flow"):
        path = published[kind][0]
        network, schedule = jd.load(path)
        denoiser = jd.prior(path, **options(kind))
        assert schedule.to_config() == denoiser.schedule.to_config()
        leaves = zip(jax.tree.leaves(network), jax.tree.leaves(denoiser.network))
        assert all(np.array_equal(a, b) for a, b in leaves)
        pair = jd.Denoiser(network, schedule, options(kind)["class_labels"])
        assert pair.decode.scale == denoiser.decode.scale  # NCSN++'s images in [0, 1]


def test_a_name_does_not_matter(published, tmp_path):
    for kind, name in (("adm", "weights.pkl"), ("edm", "prior.pt")):
        path = shutil.copy(published[kind][0], tmp_path / name)
        assert type(jd.prior(path, **options(kind)).schedule) is SCHEDULES[kind]
    tensors = torch.load(published["adm"][0], weights_only=True)
    save_file(tensors, tmp_path / "adm.bin")
    assert jd.prior(tmp_path / "adm.bin", config=ADM_FIELDS).schedule.learns_variance


def test_the_weights_alone_with_their_config(published, tmp_path):
    folder = published["ddpm"][0]
    path = shutil.copy(folder / WEIGHTS, tmp_path / "a")
    with pytest.raises(ValueError, match=r"a: the weights of a UNet2DModel, .*config\.json"):
        jd.prior(path)
    with pytest.warns(UserWarning, match="DDPM defaults"):
        denoiser = jd.prior(path, config=folder / "config.json")
    leaves = zip(jax.tree.leaves(denoiser.network), jax.tree.leaves(jd.load(folder)[0]))
    assert all(np.array_equal(a, b) for a, b in leaves)


@pytest.mark.parametrize("scaling", [None, pytest.param(0.18215, marks=pytest.mark.slow)])
def test_latents_are_decoded_as_the_pipeline_does(scaling, published, tmp_path, x64):
    """Without the field, as CompVis's own config has it, they are as they come."""
    folder = shutil.copytree(published["latent"][0], tmp_path / "latent")
    path = folder / "vqvae/config.json"
    config = json.loads(path.read_text())
    del config["scaling_factor"]
    path.write_text(json.dumps(config | ({} if scaling is None else {"scaling_factor": scaling})))
    decode = jd.prior(folder, dtype=jnp.float64).decode
    assert isinstance(decode, LatentDecoder) and decode.scaling == (scaling or 1.0)
    model = VQModel.from_pretrained(folder / "vqvae").double()
    z = np.random.default_rng(0).standard_normal((2, 8, 8, 3))
    with torch.no_grad():
        image = model.decode(nchw(z) / (scaling or 1.0)).sample / 2 + 0.5
        latents = model.encode(2 * image - 1).latents * (scaling or 1.0)

    @jax.jit
    def there_and_back(decode, z):
        images = decode(z)
        return images, decode.pinv(images), decode(z[0])

    images, back, one = there_and_back(decode, z)
    np.testing.assert_allclose(images, image.permute(0, 2, 3, 1).numpy(), atol=1e-10)
    np.testing.assert_allclose(back, latents.permute(0, 2, 3, 1).numpy(), atol=1e-10)
    np.testing.assert_allclose(one, images[0], atol=1e-12)
    assert decode.input_shape((16, 12, 3)) == (8, 6, 3)


@pytest.mark.parametrize("value", [0, -1, "1", None, True, float("inf")])
def test_a_scaling_that_is_none(value):
    with pytest.raises(ValueError, match="scaling_factor"):
        VQConfig.from_dict(VQ | {"scaling_factor": value})


@pytest.mark.parametrize("kind", ["adm", "ncsn++", "consistency"])
def test_converted_it_is_a_folder_of_diffusers(kind, published, tmp_path):
    path, network = published[kind]
    config = options(kind)["config"]
    convert(path, tmp_path / "out", config=config)
    back = UNet2DModel.from_pretrained(tmp_path / "out", low_cpu_mem_usage=False)
    x, t = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([5.0])
    labels = {"class_labels": torch.tensor([3])} if kind == "consistency" else {}
    with torch.no_grad():
        theirs, ours = network(x, t, **labels), back(x, t, **labels).sample
    torch.testing.assert_close(ours, getattr(theirs, "sample", theirs), rtol=1e-4, atol=1e-5)
    again = jd.prior(tmp_path / "out", class_labels=options(kind)["class_labels"])
    assert type(again.schedule) is SCHEDULES[kind]
    jd.save(tmp_path / "saved", again.network, again.schedule)
    pipelines = {"ncsn++": ScoreSdeVePipeline, "consistency": ConsistencyModelPipeline}
    if kind in pipelines:
        loaded = pipelines[kind].from_pretrained(tmp_path / "saved", low_cpu_mem_usage=False)
        assert loaded.scheduler.config.sigma_max == again.schedule.config.sigma_max


def test_what_has_no_folder_of_diffusers(published, tmp_path):
    for kind, message in (("edm", "SongUNet, for which"), ("latent", "prior of latents")):
        with pytest.raises(ValueError, match=message):
            convert(published[kind][0], tmp_path / "out")
        assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match=r"jd\.prior reads it"):
        jd.load(published["latent"][0])
    with pytest.raises(FileNotFoundError, match=r"jd\.prior reads it"):
        jd.load(published["adm"][0])


def table(denoiser, levels=5):
    schedule = denoiser.schedule
    times = schedule.training_times[:: len(schedule.training_times) // levels]
    at = schedule.level(times)
    ones = np.ones((len(times), 5, 3, 3), "f") * np.eye(3, dtype="f")
    return jd.SpectralCovariance(ones, np.asarray(at.t), at.signal, 1 / 8)


def test_a_table_beside_a_file(published, tmp_path):
    """Two priors of one folder have each their own."""
    path = shutil.copy(published["edm"][0], tmp_path / "a.pkl")
    denoiser = jd.prior(path)
    with pytest.raises(FileNotFoundError, match="jaxdiff calibrate"):
        jd.SpectralCovariance.load(path)
    assert table(denoiser).save(path) == tmp_path / f"a.{FILE}"
    loaded = jd.SpectralCovariance.load(path)
    loaded.check(denoiser)
    for kind in ("ddpm", "ncsn++", "consistency", "flow"):
        other = jd.prior(published[kind][0], **options(kind))
        if kind != "consistency":  # whose levels are EDM's
            with pytest.raises(ValueError, match="another noise schedule"):
                loaded.check(other)
        with pytest.raises(ValueError, match="another noise schedule"):
            table(jd.prior(published["flow" if kind != "flow" else "ddpm"][0])).check(other)


@pytest.mark.parametrize("kind", ["ncsn++", "edm", "latent"])
def test_calibration_on_any_schedule(kind, published):
    denoiser = jd.prior(published[kind][0])
    images = np.random.default_rng(0).random((4, *denoiser.image_shape)).astype("f")
    with pytest.warns(UserWarning, match="fewer than 64"):
        found = jd.SpectralCovariance.estimate(denoiser, images, key=jax.random.key(0), levels=4)
    found.check(denoiser)
    at = denoiser.schedule.level(found.timesteps)
    np.testing.assert_allclose(at.signal, found.alphas_cumprod)
    assert np.all(np.diff(found.alphas_cumprod) < 0) and found.table.shape[-1] == 3
    # Where there is next to no noise the error is next to none: at most that of the noise itself.
    assert found.table[0].max() < 100 and np.isfinite(found.table).all()


BAD_FILES = {
    "text": (lambda p: p.write_text("no checkpoint"), "a.pt"),
    "empty": (lambda p: p.write_bytes(b""), "a.pt"),
    "other tensors": (lambda p: torch.save({"a": torch.zeros(2)}, p), "no network that is known"),
    "no tensors": (lambda p: torch.save({"a": "text"}, p), "a.pt"),
    "nothing": (lambda p: torch.save({}, p), "no network that is known"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_files_of_no_known_format(name, tmp_path):
    spoil, message = BAD_FILES[name]
    spoil(tmp_path / "a.pt")
    with pytest.raises(ValueError, match=message) as e:
        jd.prior(tmp_path / "a.pt")
    assert str(tmp_path / "a.pt") in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize(
    "kind, config, message",
    [
        ("adm", {"block_out_channels": [32], "_class_name": "UNet2DModel"}, "block_out_channels: no field of guided"),
        ("adm", {"model_channels": 128}, "model_channels"),
        ("adm", ADM_FIELDS | {"num_channels": 64}, "num_channels: the config says 64, the tensors 32"),
        ("adm", ADM_FIELDS | {"use_new_attention_order": "False"}, "use_new_attention_order: expected true"),
        ("adm", {"num_head_channels": 48}, "num_head_channels: heads of 48"),
        ("adm", ADM_FIELDS | {"noise_schedule": "sine"}, "noise_schedule"),
        ("edm", {"model_channels": 16}, "model_channels: the config says 16"),
        ("edm", {"num_head_channels": 64}, "num_head_channels: the config says 64"),
        ("ddpm", {"block_out_channels": [12], "norm_num_groups": 4, "down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"]}, "do not fit the config"),
        ("ddpm", {"_class_name": "UNet1DModel"}, "_class_name"),
        ("latent", {"_class_name": "VQModel"}, "_class_name"),
    ],
    ids=str,
)  # fmt: skip
def test_a_config_of_another_network(kind, config, message, published):
    with pytest.raises(ValueError, match=message) as e:
        jd.prior(published[kind][0], config=config)
    assert "\n" not in str(e.value) and str(published[kind][0]) in str(e.value)


def test_a_decoder_that_is_missing_or_another(published, tmp_path):
    folder = shutil.copytree(published["latent"][0], tmp_path / "latent")
    weights = folder / "vqvae" / WEIGHTS
    state = load_file(weights)
    save_file({k: v for k, v in state.items() if not k.startswith("decoder.")}, weights)
    with pytest.raises(ValueError, match="have no decoder"):
        jd.prior(folder)
    VQModel(**VQ | {"latent_channels": 4}).save_pretrained(folder / "vqvae")
    with pytest.raises(ValueError, match="latents of 4 channels, its unet has 3"):
        jd.prior(folder)
    shutil.rmtree(folder / "vqvae")
    with pytest.raises(ValueError, match=r"no decoder: expected vqvae/config\.json"):
        jd.prior(folder)
    index = json.loads((folder / "model_index.json").read_text())
    index["vae"] = index.pop("vqvae")
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="latents are of a vae"):
        jd.prior(folder)


def test_noise_that_nobody_named(published, tmp_path):
    folder = shutil.copytree(published["ncsn++"][0], tmp_path / "ncsnpp")
    shutil.rmtree(folder / "scheduler")
    with pytest.raises(ValueError, match="fourier"):
        jd.prior(folder)
    (folder / "scheduler_config.json").write_text('{"_class_name": "ScoreSdeVpScheduler"}')
    with pytest.raises(ValueError, match=r"scheduler_config\.json: _class_name: .*ScoreSdeVp"):
        jd.prior(folder)


def test_the_pipeline_of_latents_is_diffusers_own(published):
    """What the test writes is what diffusers loads."""
    pipeline = LDMPipeline.from_pretrained(published["latent"][0], low_cpu_mem_usage=False)
    assert pipeline.vqvae.config.scaling_factor == VQ["scaling_factor"]
