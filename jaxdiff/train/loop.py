"""Train a prior: images → a folder that jaxdiff and diffusers load."""

import dataclasses
import functools
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from tqdm.auto import tqdm

import jaxdiff as jd
from jaxdiff.checkpoints.fingerprint import fingerprint
from jaxdiff.data.pixels import Pixels, prepare
from jaxdiff.nn.layers import average_pool
from jaxdiff.schedules import DDPMSchedule
from jaxdiff.train.folder import images_of, read_log, restore_newest, run_of, with_defaults
from jaxdiff.train.model_card import export, model_card
from jaxdiff.train.objective import noise_loss, validation_loss
from jaxdiff.train.settings import Settings
from jaxdiff.util import hosts, interrupts
from jaxdiff.util.files import write_csv
from jaxdiff.util.names import printable
from jaxdiff.util.platform import jit, training_dtype, training_images
from jaxdiff.util.pytree import pytree

COLUMNS = ("step", "loss", "validation_loss", "images_per_second")
LOG_EVERY = 50


@functools.cache  # one object for the same settings: another one would compile another update
def adamw(settings: Settings) -> optax.GradientTransformation:
    """AdamW, clipped gradients, warm-up, cosine decay to a hundredth."""
    rate = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=settings.learning_rate,
        warmup_steps=min(settings.warmup, settings.steps // 10),
        decay_steps=settings.steps,
        end_value=settings.learning_rate / 100,
    )
    return optax.chain(
        optax.clip_by_global_norm(settings.clip),
        optax.adamw(rate, weight_decay=settings.weight_decay),
    )


@pytree
class State:
    """All that a run goes on from."""

    step: Any
    params: Any
    ema: Any
    optimizer: Any


def update(
    graph,
    optimizer,
    ema,
    seed,
    level_power,
    alphas_cumprod,
    state: State,
    pixels,
    small: bool,
    at_once: int,
):
    """One step of training: the state after it, and the loss.

    `level_power`: the timesteps are T·u^level_power, u uniform in [0, 1). `at_once`, a divisor of the
    batch: how many images' gradients are computed together, and then added up.
    """
    x0 = 2 * (pixels / jnp.float32(255)) - 1
    x0 = average_pool(x0) if small else x0
    n = len(x0)
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    of_t, of_eps = jax.random.split(key)
    # One draw for all, spread evenly: the loss varies less than with one each (Kingma et al. 2021,
    # arXiv 2107.00630, I.1).
    stratified = (jax.random.uniform(of_t) + jnp.arange(n) / n) % 1
    t = (stratified**level_power * len(alphas_cumprod)).astype(jnp.int32)
    eps = jax.random.normal(of_eps, x0.shape)

    def loss(params, x0, t, eps):
        compute = jax.tree.map(lambda p: p.astype(training_dtype()), params)
        return noise_loss(nnx.merge(graph, compute), alphas_cumprod, x0, t, eps).sum() / n

    def add(total, part):
        return jax.tree.map(jnp.add, total, jax.value_and_grad(loss)(state.params, *part)), None

    # Every so many-th image: neighbours may be on different devices, and stay there.
    parts = jax.tree.map(
        lambda a: a.reshape(at_once, -1, *a.shape[1:]).swapaxes(0, 1), (x0, t, eps)
    )
    nothing = jax.tree.map(jnp.zeros_like, (jnp.float32(0), state.params))
    (value, gradient), _ = jax.lax.scan(add, nothing, parts)
    updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    # While few steps are made, an average over the last few: of Adam's start nothing stays.
    decay = jnp.minimum(ema, (1 + state.step) / (10 + state.step))
    average = optax.incremental_update(params, state.ema, 1 - decay)
    return State(state.step + 1, params, average, optimizer_state), value


_update = jit(update, static=("graph", "optimizer", "small", "at_once"), donate=("state",))


def images_at_once(batch_size: int, size: int, devices: int = 1) -> int:
    """The most that suit the platform, and divide a batch whose images are spread over devices.

    Example:
        >>> images_at_once(32, 64) in (4, 32), images_at_once(30, 256, devices=2) in (2, 30)
        (True, True)
    """
    most = (training_images(size) or batch_size) * devices
    return max(d for d in range(devices, most + 1, devices) if batch_size % d == 0)


def train(
    source: str | Path,
    out: str | Path,
    config: jd.UNet2DConfig,
    settings: Settings | None = None,
    *,
    init: str | None = None,
    devices: int | None = None,
    save_every: int = 1000,
    sample_every: int = 5000,
    licence: str = "",
    command: str = "",
    progress: bool = False,
) -> Path:
    """Train a UNet2D to predict ε, from images to a diffusers folder.

    Adam on `noise_loss` over random images, mirrored half of the time, timesteps and noise, with
    an exponential moving average of the weights (EMA), which is what is kept. The first
    `settings.half_size` of the steps see the images at half the size, at a fourth of the cost. Weights
    and moments are float32; the network computes in `platform.training_dtype()`.

    A step's images, timesteps and noise are functions of the seed and the step's number: a run
    that was stopped, by Ctrl-C or a SIGKILL, goes on from the last checkpoint and ends with the
    same weights, on one device to the bit.

    Args:
        source: images, as `jaxdiff.data.pixels.prepare` takes them.
        out: receives model/ (the diffusers folder of the EMA, with a model card, a sample grid and
            the loss plot, after every checkpoint), log.csv, checkpoints/, pixels/, settings.json.
        config: of the network; `sample_size` is the size of the images.
        settings: steps, batch size, learning rate, ...
        init: a checkpoint for `jd.load` of the same config to start from; by default random.
        devices: how many of `jax.devices()` share each batch; all by default.
        save_every, sample_every: steps between checkpoints, and between sample grids.
        licence, command: stand in the model card: the licence of the images, and how to repeat it.
        progress: show bars.

    Returns:
        out/model, for `jd.load`.

    Raises:
        ValueError: for images that are too few, an `out` of other settings, a config that can't
            be trained, a batch that the devices don't divide. OSError: for a full disk.
    """
    out, source, settings = Path(out), Path(source), settings or Settings()
    run = run_of(out)
    run.check()
    if config.size is None or config.size[0] != config.size[1] or config.size[0] % 2:
        raise ValueError(f"sample_size: expected an even size of square images, got {config.size}")
    if config.dropout or config.class_embed_type or config.num_class_embeds:
        raise ValueError("config: training has neither dropout nor classes: leave them out")
    if config.in_channels != config.out_channels:
        raise ValueError("out_channels: training predicts ε, expected as many as in_channels")
    if devices is not None and devices > jax.device_count():
        raise ValueError(f"devices: JAX sees {jax.device_count()}, not {devices}")
    mesh = Mesh(np.array(jax.devices()[:devices]), ("batch",))
    if settings.batch_size % mesh.size:
        raise ValueError(f"batch_size: {settings.batch_size} is no multiple of {mesh.size} devices")
    unet, schedule = _start(config, settings.seed, init)
    described = {"source": str(source), "init": init, "config": config.to_dict()}
    written = described | dataclasses.asdict(settings) | images_of(source)
    if init is not None:
        written["weights"] = fingerprint(nnx.state(unet), schedule)
    interrupts.keep("no checkpoint was written, the same command starts again")
    with run.hold(written, defaults=with_defaults(settings)):
        if not hosts.first():
            hosts.wait()  # the first decodes the images
        pixels = prepare(
            source,
            out / "pixels",
            config.size[0],
            config.in_channels,
            crop=settings.crop,
            progress=progress,
        )
        if hosts.first():
            hosts.wait()
        if pixels.skipped:
            warnings.warn(
                f"{source}: {len(pixels.skipped)} images skipped, such as {pixels.skipped[0]}; all "
                f"of them stand in {out}/pixels/images.json",
                stacklevel=2,
            )

        def show(denoiser: jd.Denoiser, rows: list[dict[str, Any]], sample: bool) -> None:
            """What people look at, and what others load."""
            card = model_card(described, settings, pixels, rows, licence, command)
            export(out / "model", denoiser, rows, card, sample)

        every = save_every, sample_every
        _run(out, unet, schedule, settings, pixels, mesh, every, show, progress)
    return out / "model"


def _run(
    out: Path,
    unet: jd.UNet2D,
    schedule: DDPMSchedule,
    settings: Settings,
    pixels: Pixels,
    mesh: Mesh,
    every: tuple[int, int],
    show: Callable[[jd.Denoiser, list[dict[str, Any]], bool], None],
    progress: bool,
) -> None:
    """The steps that are left, with a checkpoint after so many, and samples after so many."""
    save_every, sample_every = every
    over_devices, whole = NamedSharding(mesh, P("batch")), NamedSharding(mesh, P())
    graph, params = nnx.split(unet)
    optimizer = adamw(settings)
    state = State(jnp.zeros((), jnp.int32), params, params, optimizer.init(params))
    state = jax.device_put(jax.tree.map(jnp.copy, state), whole)
    alphas_cumprod = jnp.asarray(schedule.alphas_cumprod, jnp.float32)
    options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
    rows: list[dict[str, Any]] = []
    bar = tqdm(total=settings.steps, unit="step", disable=not progress)
    with ocp.CheckpointManager((out / "checkpoints").absolute(), options=options) as manager, bar:
        state = restore_newest(manager, state)
        rows = [row for row in read_log(out) if row["step"] <= int(state.step)]
        bar.update(int(state.step))

        def say() -> None:
            step = manager.latest_step()
            kept = "no checkpoint is" if step is None else f"the checkpoint of step {step} is"
            interrupts.keep(f"{kept} in {printable(out)}/, the same command goes on from there")

        def check(ok: bool, what: str, step: int) -> None:
            if not ok:
                raise ValueError(
                    f"{what} at step {step} is not finite: stopped, with the last checkpoint of "
                    f"step {manager.latest_step() or 0}: name another folder and a lower "
                    "--learning-rate"
                )

        def checkpoint() -> None:
            """The log first: it is there when the checkpoint is."""
            if hosts.first():
                write_csv(out / "log.csv", rows)
            manager.save(int(state.step), args=ocp.args.StandardSave(state))
            say()

        def save(sample: bool) -> None:
            """What people look at, then the checkpoint."""
            if hosts.first():
                weights = jax.tree.map(np.asarray, state.ema)  # of this host alone from here on
                denoiser = jd.Denoiser(nnx.merge(graph, weights), schedule)
                rows[-1]["validation_loss"] = validation_loss(denoiser, pixels.validation)
                show(denoiser, rows, sample)
            checkpoint()

        losses, started = [], time.perf_counter()

        def record() -> None:
            """A row of the log for the steps since the last one."""
            nonlocal losses, started
            of_each = np.array(losses)
            finite = np.isfinite(of_each)
            check(
                bool(finite.all()), "the loss", int(state.step) - len(losses) + int(finite.argmin())
            )
            check(bool(_finite((state.params, state.ema))), "a weight", int(state.step))
            speed = len(losses) * settings.batch_size / (time.perf_counter() - started)
            rows.append(dict(zip(COLUMNS, (int(state.step), float(of_each.mean()), "", speed))))
            bar.set_postfix_str(f"loss {rows[-1]['loss']:.4f}, {speed:.1f} images/s")
            losses, started = [], time.perf_counter()

        say()
        try:
            for step, batch in _batches(pixels, settings, int(state.step), over_devices):
                small = step < settings.half_size * settings.steps
                state, loss = _update(
                    graph,
                    optimizer,
                    settings.ema,
                    settings.seed,
                    settings.level_power,
                    alphas_cumprod,
                    state,
                    batch,
                    small,
                    images_at_once(settings.batch_size, pixels.size // (1 + small), mesh.size),
                )
                losses.append(loss)
                bar.update()
                done, last = step + 1, step + 1 == settings.steps
                if done % LOG_EVERY == 0 or done % save_every == 0 or last:
                    record()
                if done % save_every == 0 or last:
                    save(sample=done % sample_every == 0 or last)
                    started = time.perf_counter()
        except KeyboardInterrupt:
            # Unless it came within an update, whose memory is gone, or just after a checkpoint.
            if not state.step.is_deleted() and int(state.step) > (manager.latest_step() or 0):
                if losses:
                    record()
                checkpoint()
            raise


@jit
def _finite(tree: Any) -> jax.Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def _start(config, seed: int, init: str | None) -> tuple[jd.UNet2D, DDPMSchedule]:
    if init is None:
        return jd.UNet2D(config, rngs=nnx.Rngs(seed)), DDPMSchedule()
    unet, schedule = jd.load(init)
    if unet.config.to_dict() != config.to_dict():
        raise ValueError(f"init: {init} has another config: leave --config out to take its own")
    if not isinstance(schedule, DDPMSchedule) or schedule.config.prediction_type != "epsilon":
        raise ValueError(f"init: {init} does not predict the noise of a DDPM schedule")
    return unet, schedule


def _batches(
    pixels: Pixels, settings: Settings, start: int, over_devices
) -> Iterator[tuple[int, Any]]:
    """(step, images on the devices) from `start` on; the next is read while this one is used."""

    def read(step):
        images = pixels.batch(step, settings.batch_size, settings.seed, settings.flip)
        return jax.make_array_from_callback(images.shape, over_devices, lambda index: images[index])

    with ThreadPoolExecutor(1) as reader:
        following = reader.submit(read, start)
        for step in range(start, settings.steps):
            batch, following = following.result(), reader.submit(read, step + 1)
            yield step, batch
