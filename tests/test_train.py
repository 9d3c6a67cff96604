"""Training: the update is torch's, a stopped run ends as one that was not, bad images are counted."""

import csv
import errno
import json
import os
import shutil
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from diffusers import DDPMPipeline, UNet2DModel
from flax import nnx
from PIL import Image
from typer.testing import CliRunner

import jaxdiff as jd
from jaxdiff import data
from jaxdiff.cli import app
from jaxdiff.data.pixels import prepare
from jaxdiff.train import loop as train
from jaxdiff.train.objective import validation_loss
from jaxdiff.util import platform

CONFIG = {
    "sample_size": 16,
    "block_out_channels": [8],
    "down_block_types": ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "mid_block_type": None,
}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """The bundled faces as a folder of 16 images, half of them mirrored."""
    folder = tmp_path_factory.mktemp("photographs")
    for name, image in data.faces().items():
        data.write_image(folder / f"{name}.png", image)
        data.write_image(folder / f"{name}-mirrored.png", image[:, ::-1])
    return folder


def run(photographs, out, **changes):
    settings = {"steps": 12, "batch_size": 4, "half_size": 0.2} | changes
    options = {"save_every": 5, "sample_every": 100, "devices": settings.pop("devices", 1)}
    config = jd.UNet2DConfig.from_dict(CONFIG)
    return train.train(photographs, out, config, train.Settings(**settings), **options)


@pytest.fixture(scope="module")
def finished(photographs, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    run(photographs, out)
    return out


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_update_is_that_of_torch(tmp_path, power):
    """Loss, clipped gradients and AdamW of one step, at a rate where a wrong gradient shows."""
    unet = jd.UNet2D(CONFIG, rngs=nnx.Rngs(0))
    schedule = jd.Schedule.from_config()
    jd.save(tmp_path, unet, schedule)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2, eps=1e-3))
    graph, params = nnx.split(unet)
    copy = jax.tree.map(jnp.copy, (params, params))  # the update takes its state's memory
    state = train.State(jnp.zeros((), jnp.int32), *copy, optimizer.init(params))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    alphas_cumprod = jnp.asarray(schedule.alphas_cumprod, jnp.float32)
    state, loss = train._update(
        graph, optimizer, 0.9, 0, power, alphas_cumprod, state, pixels, False, 2
    )

    of_t, of_eps = jax.random.split(jax.random.fold_in(jax.random.key(0), 0))
    u = np.asarray((jax.random.uniform(of_t) + jnp.arange(4) / 4) % 1)
    t = (u**power * 1000).astype(int)
    eps = np.asarray(jax.random.normal(of_eps, pixels.shape))
    alpha = schedule.alphas_cumprod[t][:, None, None, None].astype(np.float32)
    x_t = np.sqrt(alpha) * (pixels / np.float32(127.5) - 1) + np.sqrt(1 - alpha) * eps
    model = UNet2DModel.from_pretrained(tmp_path, low_cpu_mem_usage=False)
    adam = torch.optim.AdamW(model.parameters(), 1e-2, eps=1e-3, weight_decay=1e-4)
    out = model(torch.tensor(x_t.transpose(0, 3, 1, 2)), torch.tensor(t)).sample
    theirs = ((out - torch.tensor(eps.transpose(0, 3, 1, 2))) ** 2).mean()
    theirs.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    adam.step()
    assert abs(float(loss) - theirs.item()) <= 1e-5
    jd.save(tmp_path, nnx.merge(graph, state.params), schedule)
    ours = UNet2DModel.from_pretrained(tmp_path, low_cpu_mem_usage=False).state_dict()
    for name, tensor in model.state_dict().items():
        assert (ours[name] - tensor).abs().max() <= 2e-5, name
    # the average of the first steps: decay is (1 + 0)/(10 + 0)
    expected = jax.tree.map(lambda a, b: 0.1 * a + 0.9 * b, params, state.params)
    for a, b in zip(jax.tree.leaves(state.ema), jax.tree.leaves(expected)):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_it_learns(photographs, tmp_path):
    model = run(photographs, tmp_path / "run", steps=60)
    rows = log(tmp_path / "run")
    assert float(rows[-1]["validation_loss"]) < 0.9 * float(rows[0]["validation_loss"])
    unet, schedule = jd.load(model)
    pixels = prepare(photographs, tmp_path / "run" / "pixels", 16)
    again = validation_loss(jd.Denoiser(unet, schedule), pixels.validation)
    assert abs(again - float(rows[-1]["validation_loss"])) <= 1e-6


def test_crops_are_squares_of_the_images_as_they_are(tmp_path):
    """Every pixel says where it is, so a crop does too: at the image's own scale, mirrored or not."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, (h, w) in enumerate([(24, 40), (33, 20), (16, 16), (15, 90)]):
        y, x = np.mgrid[:h, :w].astype(np.uint8)
        image = np.stack([y, x, np.full_like(x, number)], -1)
        Image.fromarray(image).save(folder / f"{number}.png")
    pixels = prepare(folder, tmp_path / "pixels", 16, crop=True)
    assert len(pixels.skipped) == 1 and "3.png" in pixels.skipped[0]
    assert len(pixels.train) == 2 and pixels.validation.shape == (16, 16, 16, 3)
    corners = set()
    for step in range(40):
        batch = pixels.batch(step, 2, seed=0)
        np.testing.assert_array_equal(batch, pixels.batch(step, 2, seed=0))
        for square in batch.astype(int):
            assert (np.diff(square[..., 0], axis=0) == 1).all()
            assert (abs(np.diff(square[..., 1], axis=1)) == 1).all()
            corners.add((square[0, 0, 2], square[0, 0, 0], square[0, :, 1].min()))
    assert len(corners) > 40
    again = prepare(folder, tmp_path / "pixels", 16, crop=True)
    np.testing.assert_array_equal(again.batch(3, 2, seed=0), pixels.batch(3, 2, seed=0))
    with pytest.raises(ValueError, match="to be cropped"):
        prepare(folder, tmp_path / "pixels", 16)


def test_diffusers_loads_what_was_trained(finished):
    model = finished / "model"
    assert {"README.md", "samples.png", "loss.png"} <= {p.name for p in model.iterdir()}
    unet, _ = jd.load(model)
    pipeline = DDPMPipeline.from_pretrained(model, low_cpu_mem_usage=False)
    x = np.random.default_rng(0).standard_normal((2, 16, 16, 3)).astype("f")
    with torch.no_grad():
        theirs = pipeline.unet(torch.tensor(x.transpose(0, 3, 1, 2)), 300).sample.numpy()
    assert np.abs(np.asarray(unet(x, 300)) - theirs.transpose(0, 2, 3, 1)).max() <= 1e-5


def log(out):
    return list(csv.DictReader((out / "log.csv").read_text().splitlines()))


def weights(out):
    unet, _ = jd.load(out / "model")
    return [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(unet))]


def losses(out):
    return [(r["step"], r["loss"], r["validation_loss"]) for r in log(out)]


KILLED = """
import os, signal, sys, pathlib
from jaxdiff.util import platform
from jaxdiff.train import loop as train
import jaxdiff as jd, json

options = json.loads(sys.argv[4])  # of the compiler, as in this module's other runs
platform.compiler_options = lambda: options

def deadly(real):
    def call(source, target, *args, **kwargs):
        if "checkpoints" in str(target) and pathlib.Path(target).name == "10":
            os.kill(os.getpid(), signal.SIGKILL)  # all is written, nothing is in its place
        return real(source, target, *args, **kwargs)
    return call

os.rename, os.replace = deadly(os.rename), deadly(os.replace)
train.train(
    sys.argv[1], sys.argv[2], jd.UNet2DConfig.from_dict(json.loads(sys.argv[3])),
    train.Settings(steps=12, batch_size=4, half_size=0.2),
    save_every=5, sample_every=100, devices=1,
)
"""


def test_killed_while_a_checkpoint_is_written(photographs, finished, tmp_path):
    """Nothing is lost but the steps since the last whole checkpoint, and the end is the same."""
    out = tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, str(photographs), str(out), json.dumps(CONFIG)]
    command.append(json.dumps(platform.compiler_options()))
    # In ASCII: the model card, whose × it lacks, is written before the kill.
    ascii = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    process = subprocess.run(command, env=os.environ | ascii, capture_output=True, text=True)
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert [p.name for p in (out / "checkpoints").iterdir() if p.name.isdigit()] == ["5"]
    jd.load(out / "model")
    run(photographs, out)
    for a, b in zip(weights(out), weights(finished)):
        np.testing.assert_array_equal(a, b)
    assert losses(out) == losses(finished)


@pytest.mark.parametrize("stop", [3, 7])
def test_stopped_by_hand(stop, photographs, finished, tmp_path, monkeypatch):
    """Ctrl-C writes a checkpoint, also before there is any, and the next run goes on from there."""
    steps = train._batches

    def interrupted(*args):
        for step, batch in steps(*args):
            if step == stop:
                raise KeyboardInterrupt
            yield step, batch

    monkeypatch.setattr(train, "_batches", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(photographs, tmp_path / "run")
    assert (tmp_path / "run" / "checkpoints" / str(stop)).is_dir()
    monkeypatch.undo()
    run(photographs, tmp_path / "run")
    for a, b in zip(weights(tmp_path / "run"), weights(finished)):
        np.testing.assert_array_equal(a, b)


def test_devices_share_a_batch(photographs, finished, tmp_path):
    run(photographs, tmp_path / "run", devices=4)
    for a, b in zip(weights(tmp_path / "run"), weights(finished)):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_another_run_in_the_folder(photographs, finished, tmp_path):
    with pytest.raises(ValueError, match="run of another seed: name another folder"):
        run(photographs, finished, seed=1)
    other = tmp_path / photographs.name
    shutil.copytree(photographs, other)
    data.write_image(other / "0.png", np.zeros((64, 64, 3)))
    with pytest.raises(ValueError, match="another source, images: name another folder"):
        run(other, finished)


@pytest.mark.parametrize("changes", [{"learning_rate": 1e30}, {"learning_rate": 1e19, "clip": 1e9}])
def test_what_is_not_finite_is_not_saved(changes, photographs, tmp_path):
    """It stops, says the step, and the checkpoint and the model before it are there."""
    out = tmp_path / "run"
    with pytest.raises(ValueError, match=r"at step \d+ is not finite.*--learning-rate"):
        run(photographs, out, steps=40, **changes)
    for path in (out / "model").glob("*.safetensors"):
        assert all(np.isfinite(leaf).all() for leaf in weights(out)), path


@pytest.mark.parametrize("damage", ["empty", "cut", "gone"])
def test_a_damaged_checkpoint(damage, photographs, finished, tmp_path):
    """The one before it is used, with a warning, and the end is the same."""
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    for path in (out / "checkpoints/12").rglob("*"):
        if path.is_file() and path.stat().st_size > 100:
            content = path.read_bytes()
            path.write_bytes({"empty": b"", "cut": content[: len(content) // 2]}.get(damage, b""))
            if damage == "gone":
                path.unlink()
    with pytest.warns(UserWarning, match="step 12 is damaged .* going on from step 10"):
        run(photographs, out)
    for a, b in zip(weights(out), weights(finished)):
        np.testing.assert_array_equal(a, b)


def test_files_that_are_gone(photographs, finished, tmp_path):
    """The log begins anew; settings that are gone are this command's, and written again."""
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    shutil.rmtree(out / "checkpoints" / "12")
    (out / "log.csv").unlink()
    settings = (out / "settings.json").read_text()
    (out / "settings.json").unlink()
    with pytest.warns(UserWarning, match="is gone"):
        run(photographs, out)
    assert [row["step"] for row in log(out)] == ["12"]
    assert (out / "settings.json").read_text() == settings
    for a, b in zip(weights(out), weights(finished)):
        np.testing.assert_array_equal(a, b)


def test_full_disk(photographs, finished, tmp_path, monkeypatch):
    """One line, and the last checkpoint is whole."""
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    shutil.rmtree(out / "checkpoints" / "12")

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device", str(out / "model"))

    monkeypatch.setattr(train.jd, "save", full)
    with pytest.raises(OSError, match="No space left"):
        run(photographs, out)
    monkeypatch.undo()
    run(photographs, out)
    for a, b in zip(weights(out), weights(finished)):
        np.testing.assert_array_equal(a, b)


def test_damaged_and_small_images_are_counted(photographs, tmp_path):
    folder = tmp_path / "images"
    shutil.copytree(photographs, folder)
    (folder / "damaged.png").write_bytes((folder / "0.png").read_bytes()[:300])
    data.write_image(folder / "tiny.png", np.zeros((15, 40, 3)))
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(folder / "grey.png")
    pixels = prepare(folder, tmp_path / "pixels", 16)
    assert len(pixels.train) + len(pixels.validation) == 17
    assert len(pixels.skipped) == 2
    assert "damaged.png" in pixels.skipped[0] and "tiny.png: 40×15" in pixels.skipped[1]
    again = prepare(folder, tmp_path / "pixels", 16)
    np.testing.assert_array_equal(again.train, pixels.train)


@pytest.mark.parametrize("source", ["absent", "empty", "damaged"])
def test_no_images(source, tmp_path, uncached):
    if source != "absent":
        (tmp_path / source).mkdir()
    if source == "damaged":
        (tmp_path / source / "a.png").write_bytes(b"no image")
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["train", str(tmp_path / source), "--out", str(out)])
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1, result.output
    assert source in result.stderr
    assert not (out / "settings.json").exists()


def test_every_epoch_has_every_image_once(photographs, tmp_path):
    pixels = prepare(photographs, tmp_path / "pixels", 16)
    n = len(pixels.train)
    epochs = np.concatenate([pixels.batch(step, 5, 0, flip=False) for step in range(n)])
    for epoch in np.split(epochs, 5):
        assert len({image.tobytes() for image in epoch}) == len({i.tobytes() for i in pixels.train})
    assert not np.array_equal(epochs[:n], epochs[n : 2 * n])
    flipped = pixels.batch(3, 64, 0)
    plain = pixels.batch(3, 64, 0, flip=False)
    mirrored = [not np.array_equal(a, b) for a, b in zip(flipped, plain)]
    assert 16 < sum(mirrored) < 48
    for a, b, m in zip(flipped, plain, mirrored):
        np.testing.assert_array_equal(a, b[:, ::-1] if m else b)


def test_packed_and_hugging_face_sources(photographs, tmp_path):
    """An .npz with its own validation split, folders train and validation, and .parquet files."""
    files = [p.read_bytes() for p in data.list_images(photographs)]
    offsets = np.cumsum([0, *map(len, files)])
    packed = {"bytes": np.frombuffer(b"".join(files), np.uint8), "offsets": offsets}
    arrays = {f"{split}_{k}": v for split in ("train", "val") for k, v in packed.items()}
    np.savez(tmp_path / "images.npz", **arrays)
    for split in ("train", "validation"):
        (tmp_path / "folders" / split).mkdir(parents=True)
        for i, content in enumerate(files):
            (tmp_path / "folders" / split / f"{i:02}.png").write_bytes(content)
    for source in ("images.npz", "folders"):
        pixels = prepare(tmp_path / source, tmp_path / f"{source}-pixels", 16)
        assert len(pixels.train) == len(pixels.validation) == 16
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    import pyarrow

    cells = [{"bytes": content, "path": f"{i}.png"} for i, content in enumerate(files)]
    (tmp_path / "hub" / "data").mkdir(parents=True)
    table = pyarrow.table({"image": cells, "label": list(range(16))})
    parquet.write_table(table, tmp_path / "hub" / "data" / "train-00000-of-00001.parquet")
    pixels = prepare(tmp_path / "hub", tmp_path / "hub-pixels", 16)
    assert len(pixels.train) == 15 and len(pixels.validation) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps: expected"),
        ({"ema": 1.0}, "ema: expected"),
        ({"batch_size": 6, "devices": 4}, "batch_size: 6 is no multiple of 4 devices"),
        ({"devices": 64}, "devices: JAX sees 8, not 64"),
    ],
)
def test_bad_settings(changes, message, photographs, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(photographs, tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()
