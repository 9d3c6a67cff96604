"""`jaxdiff sample`, `calibrate`, `train` and `convert`: what is done to a prior."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

import jaxdiff as jd
from jaxdiff.checkpoints.formats import convert as rewrite
from jaxdiff.cli.options import (
    BatchOption,
    ClassLabelOption,
    ConfigOption,
    DevicesOption,
    DtypeOption,
    ForceOption,
    HostsOption,
    ModelOption,
    PrecisionOption,
    SeedOption,
    StepsOption,
)
from jaxdiff.cli.restoring import end_with
from jaxdiff.cli.terminal import (
    cache_compiled_programs,
    check_writable,
    progress,
    say,
    show,
    status,
)
from jaxdiff.covariance.table import FILE as COVARIANCE
from jaxdiff.covariance.table import table_path
from jaxdiff.util import hosts, interrupts
from jaxdiff.util.files import read_json, replace_file
from jaxdiff.util.locks import sole_writer
from jaxdiff.util.names import printable
from jaxdiff.util.together import is_free, write_together


class Unconditional(StrEnum):
    """The samplers that draw from the prior."""

    ddpm = "ddpm"
    ddim = "ddim"


def sample(
    n: Annotated[int, typer.Option(help="How many images.", min=1)] = 16,
    steps: StepsOption = 100,
    sampler: Annotated[Unconditional, typer.Option(help="The method.")] = Unconditional.ddpm,
    eta: Annotated[float, typer.Option(help="η of DDIM.")] = 0.0,
    model: ModelOption = "faces64",
    config: ConfigOption = None,
    class_label: ClassLabelOption = None,
    seed: SeedOption = 0,
    batch_size: BatchOption = None,
    precision: PrecisionOption = None,
    devices: DevicesOption = None,
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("samples.png"),
) -> None:
    """Draw images from the prior, in a grid."""
    import jax
    import numpy as np

    from jaxdiff import data, plot

    if out.suffix.lower() != ".png":
        raise ValueError(f"--out: expected a name that ends in .png, got {out}")
    check_writable(out)
    cache_compiled_programs()
    denoiser = jd.prior(model, config=config, class_labels=class_label)
    if denoiser.shape is None:
        raise ValueError(f"--model: {model} names no sample_size in its config")
    method = jd.DDPM(denoiser) if sampler == "ddpm" else jd.DDIM(denoiser, eta)
    say("compiling…")
    drawn = jd.sample(
        method,
        denoiser.schedule.steps(steps),
        key=jax.random.key(seed),
        n=n,
        batch_size=batch_size,
        progress=progress(),
        sharding=hosts.device_sharding(devices),
        precision=precision,
    )
    if not np.isfinite(images := np.asarray(drawn)).all():
        raise ValueError(f"{model}: its samples are not finite, nothing is written")
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, lambda p: data.write_image(p, plot.grid(images)))
    text = f"{n} images, {steps} steps of {sampler.value}: {printable(out)}"
    show({"images": n, "steps": steps, "sampler": sampler.value, "out": str(out)}, text)


def calibrate(
    model: Annotated[
        str, typer.Argument(help="The prior, as --model of the other commands names it.")
    ],
    images: Annotated[
        Path | None,
        typer.Argument(
            help="Images that the prior should know: a folder, or an .npz of packed images; by "
            "default the prior's own samples."
        ),
    ] = None,
    n: Annotated[
        int | None,
        typer.Option(help="How many images, or samples.", min=1, show_default="256, or 64 samples"),
    ] = None,
    levels: Annotated[int, typer.Option(help="Noise levels.", min=2)] = 25,
    size: Annotated[
        int | None,
        typer.Option(help="Of the images, in pixels.", min=8, show_default="the model's"),
    ] = None,
    crop: Annotated[
        bool,
        typer.Option("--crop", help="The middle of images at their own scale, not fitted to SIZE."),
    ] = False,
    config: ConfigOption = None,
    class_label: ClassLabelOption = None,
    seed: SeedOption = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="The folder to write.", show_default="the model's, or beside its file"),
    ] = None,
) -> None:
    """Measure how wrong the prior's denoiser is: what the spectral sampler needs, once a model.

    Writes spectral_covariance.safetensors and spectral_covariance.png, beside the checkpoint where
    MODEL is a folder or a file; diffusers still loads it.
    """
    import jax
    import numpy as np

    from jaxdiff import data, plot
    from jaxdiff.commands.images import read_all
    from jaxdiff.priors import of_size

    if out is None and not Path(model).exists():
        raise ValueError(f"--out: {model} is no folder here: name the folder to write")
    if out is not None and out.exists() and not out.is_dir():
        raise ValueError(f"--out: {out} is a file, name a folder")
    out = out or Path(model)
    cache_compiled_programs()
    target = table_path(out)
    with sole_writer(target.parent):
        denoiser = jd.prior(model, config=config, class_labels=class_label)
        if (shape := denoiser.image_shape) is None:
            raise ValueError(f"{model} names no sample_size in its config")
        if images is None and (size or crop):
            raise ValueError("--size, --crop: are of images: name some")
        if size is not None:
            denoiser, shape = of_size(denoiser, (size, size)), (size, size, shape[2])
        how = "crop" if crop else "resize"
        n = n or (64 if images is None else 256)
        known, bad = None, []
        if images is not None and images.is_dir():
            good, bad = read_all(images, shape, how, n)
            known = np.stack(list(good.values()))
        elif images is not None:
            known = data.load_images(images, (shape[0], shape[1]), how, n, channels=shape[2])
        say("compiling…")
        covariance = jd.SpectralCovariance.estimate(
            denoiser, known, key=jax.random.key(seed), n=n, levels=levels, progress=progress()
        )
        figure = plot.error_spectra(covariance)
        picture = target.with_suffix(".png").name
        files = {
            target.name: covariance.write,
            picture: lambda path: figure.savefig(path, dpi=110, format="png"),
        }
        write_together(target.parent, files, key=target.name)
    source = f"{n} samples" if known is None else f"{len(known)} images of {images}"
    count = len(covariance.timesteps)
    text = f"{source}, {count} noise levels: {printable(target)}, {picture}"
    show({"table": str(target), "levels": count, "failed": bad}, text)
    end_with(bad)


def train(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IMAGES",
            help="A folder of images, an .npz of packed images, or a Hugging Face image data set "
            "on disk.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder to write; a run that is there goes on.")],
    size: Annotated[int, typer.Option(help="Of the images, in pixels.", min=8)] = 64,
    config: Annotated[
        str | None,
        typer.Option(
            help="The network: small, convolutional (no attention), or a config.json of "
            "diffusers' UNet2DModel.",
            show_default="small, or that of --init",
        ),
    ] = None,
    init: Annotated[
        str | None, typer.Option(help="A checkpoint to start from.", show_default="random weights")
    ] = None,
    steps: Annotated[int, typer.Option(help="Updates of the weights.", min=1)] = 50_000,
    batch_size: Annotated[int, typer.Option(help="Images an update.", min=1)] = 32,
    learning_rate: Annotated[float, typer.Option(help="Its highest.")] = 3e-4,
    level_power: Annotated[
        float,
        typer.Option(help="Timesteps T·u^p, u uniform in [0, 1): above 1, more of little noise."),
    ] = 1.0,
    ema: Annotated[float, typer.Option(help="Decay of the averaged weights.")] = 0.9995,
    half_size: Annotated[
        float, typer.Option(help="The first part of the steps, at half the size.")
    ] = 0.3,
    flip: Annotated[bool, typer.Option(help="Mirror half of the images.")] = True,
    crop: Annotated[
        bool,
        typer.Option(
            "--crop",
            help="Squares at random places of images at their own scale, not fitted to SIZE.",
        ),
    ] = False,
    seed: SeedOption = 0,
    save_every: Annotated[int, typer.Option(help="Steps between checkpoints.", min=1)] = 1000,
    sample_every: Annotated[int, typer.Option(help="Steps between sample grids.", min=1)] = 5000,
    licence: Annotated[
        str,
        typer.Option(
            help='Of the images, for the model card: "CC-BY-4.0: FairFace, ...".',
            show_default="not said",
        ),
    ] = "",
    devices: Annotated[
        int | None, typer.Option(help="Share each batch.", show_default="all", min=1)
    ] = None,
    several: HostsOption = False,
) -> None:
    """Train a prior on images of your own.

    Writes OUT/model, a folder for jaxdiff and diffusers with a model card, OUT/log.csv, and
    OUT/checkpoints. Stopped at any moment, the same command goes on from the last checkpoint.
    """
    import shlex

    from jaxdiff.train import Settings
    from jaxdiff.train import train as run

    settings = Settings(
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        level_power=level_power,
        ema=ema,
        half_size=half_size,
        flip=flip,
        crop=crop,
        seed=seed,
    )
    with hosts.joined(several):
        cache_compiled_programs()
        model = run(
            source,
            out,
            jd.UNet2DConfig.from_dict(_config(config, init) | {"sample_size": size}),
            settings,
            init=init,
            devices=devices,
            save_every=save_every,
            sample_every=sample_every,
            licence=licence,
            command=shlex.join(["jaxdiff", *sys.argv[1:]]),
            progress=progress(),
        )
        if hosts.first():
            text = f"{printable(model)}, {printable(out)}/log.csv"
            show({"model": str(model), "log": f"{out}/log.csv"}, text)


def _config(name: str | None, init: str | None) -> dict:
    """The network's config: by name, from a file, or that of the checkpoint to start from."""
    from jaxdiff.train import CONFIGS

    if name is None and init is not None:
        return jd.load(init)[0].config.to_dict()
    if (name or "small") in CONFIGS:
        return CONFIGS[name or "small"]
    if name is not None and Path(name).is_file():
        return read_json(Path(name))
    raise FileNotFoundError(f"--config: expected {', '.join(CONFIGS)} or a file, got {name!r}")


def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="A diffusers folder, a hub id, a .pt of guided-diffusion, photos64 or faces64."
        ),
    ],
    destination: Annotated[Path, typer.Argument(help="The folder to write.")],
    dtype: DtypeOption = "float32",
    config: ConfigOption = None,
    force: ForceOption = False,
) -> None:
    """Rewrite a checkpoint as safetensors with today's names, flat, for jaxdiff and diffusers.

    The scheduler's config and the table of covariances stay as they are. Needs no torch. `python -m convert --verify`, in the repository, also compares with diffusers.
    """
    convert_checkpoint(source, destination, dtype, force, config)
    line = f"{source} → {printable(destination)} ({dtype})"
    show({"source": source, "destination": str(destination), "dtype": dtype}, line)


def convert_checkpoint(
    source: str, destination: Path, dtype: str, force: bool, config: Path | None = None
) -> None:
    """Rewrite a checkpoint, into a folder that is empty or was meant."""
    if dtype not in ("float32", "bfloat16", "float16"):
        raise ValueError(f"--dtype: expected float32, bfloat16 or float16, got {dtype!r}")
    if destination.exists() and not destination.is_dir():
        raise ValueError(f"{destination} is a file: name a folder")
    interrupts.keep(f"{destination} is as it was")
    with sole_writer(destination), status(f"converting {source}"):
        if not is_free(destination) and not force:
            raise ValueError(f"{destination} is not empty: name another folder or pass --force")
        rewrite(source, destination, config=config, dtype=dtype, keep=(COVARIANCE,))
