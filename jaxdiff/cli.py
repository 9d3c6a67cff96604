"""The command line: `jaxdiff restore`, `evaluate`, `sample`, `calibrate`, `train` and `convert`."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.markdown import Markdown

import jaxdiff as jd
from jaxdiff import hosts
from jaxdiff.checkpoint import read_json, replace_file
from jaxdiff.samplers.named import NAMES
from jaxdiff.terminal import cache_compiled_programs, console, errors, run_app, writable_parent

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Restore images with a diffusion prior, in JAX.",
)


class Unconditional(StrEnum):
    """The samplers that draw from the prior."""

    ddpm = "ddpm"
    ddim = "ddim"


class Fit(StrEnum):
    """What to do with an image of another size."""

    resize = "resize"
    crop = "crop"


ModelOption = Annotated[
    str, typer.Option(help="The prior: faces64, a diffusers folder, or a hub id.")
]
SeedOption = Annotated[int, typer.Option(help="Seed of the noise.", min=0)]
StepsOption = Annotated[int, typer.Option(help="Network evaluations.", min=1)]
BatchOption = Annotated[int | None, typer.Option(help="Most samples at once.", min=1)]
DtypeOption = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]
DevicesOption = Annotated[
    int | None, typer.Option(help="Spread over so many devices of this host.", min=1)
]
HostsOption = Annotated[
    bool,
    typer.Option(
        "--hosts",
        help="One of several processes, each with its share of the images: started by srun or "
        "mpirun, or with JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.",
    ),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace files in the destination.")]


@app.command()
def restore(
    images: Annotated[
        Path | None,
        typer.Argument(help="An image or a folder of images; by default a bundled portrait."),
    ] = None,
    kernel: Annotated[
        str | None,
        typer.Option(
            help="The blur: a .mat (v5, v7.3; FILE.mat:3 takes its fourth), .npy or .png file, "
            "gaussian:SIZE,STD or motion:SIZE,SEED.  [default with --degrade: motion:9,0]",
            show_default=False,
        ),
    ] = None,
    operator: Annotated[
        str | None,
        typer.Option(
            help="Another camera than a blur: mask:FILE.png (white is known), mask:0.3,SEED, "
            "downsample:4 (or 4,bicubic), crop:8, grey, blur:KERNEL, or A@B, A after B.",
            show_default=False,
        ),
    ] = None,
    sigma: Annotated[
        str, typer.Option(help="Standard deviation of the noise, image in [0, 1]; 10/255 works.")
    ] = "10/255",
    degrade: Annotated[
        bool,
        typer.Option("--degrade", help="The images are clean: blur them first, and score."),
    ] = False,
    sampler: Annotated[
        str | None,
        typer.Option(
            help=f"One of {', '.join(NAMES)}.  [default: spectral where the prior has been "
            "calibrated, else pigdm-paper]",
            show_default=False,
        ),
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(
            help="Guidance scale.  [default: 1, and 100 for dps-adaptive]", show_default=False
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Network evaluations.  [default: 10 for spectral, 20 for the others]",
            min=1,
            show_default=False,
        ),
    ] = None,
    samples: Annotated[int, typer.Option(help="Posterior samples of each image.", min=1)] = 9,
    model: ModelOption = "faces64",
    seed: SeedOption = 0,
    fit: Annotated[
        Fit | None,
        typer.Option(
            help="For images of another size than the prior's: resize (cover, then cut) or crop "
            "(the middle).",
            show_default=False,
        ),
    ] = None,
    batch_size: BatchOption = None,
    devices: DevicesOption = None,
    several: HostsOption = False,
    out: Annotated[Path, typer.Option(help="The folder to write.")] = Path("restored"),
) -> None:
    """Restore blurred, noisy or incomplete images; without arguments, a demonstration.

    Writes degraded.png, restored.png (the mean of the posterior samples), comparison.png and
    metrics.json to OUT, for a folder of images to a folder for each.
    """
    from jaxdiff.restore import Settings, restore_images

    if kernel is not None and operator is not None:
        raise ValueError("--operator: name either it or --kernel, which means --operator blur:...")
    settings = Settings(
        operator=operator if kernel is None else f"blur:{kernel}",
        sigma=parse_sigma(sigma),
        degrade=degrade or images is None,
        sampler=sampler,
        scale=scale,
        steps=steps,
        samples=samples,
        model=model,
        seed=seed,
        fit=None if fit is None else fit.value,
        batch_size=batch_size,
    )
    if several:
        hosts.join()
    cache_compiled_programs()
    bad = restore_images(images, settings, out, console, hosts.spread(devices))
    for line in bad:
        errors.print(f"[red]error:[/red] {line}", markup=True)
    if bad:
        raise typer.Exit(2)


@app.command()
def evaluate(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATA",
            help="A folder of images, with a .mat of kernels if there is one; by default the "
            "bundled faces and generated camera shakes.",
        ),
    ] = None,
    samplers: Annotated[
        str | None,
        typer.Option(
            help=f"Of {', '.join(NAMES)}, with commas between.  [default: all; spectral where the "
            "prior has been calibrated]",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[str, typer.Option(help="Network evaluations, with commas between.")] = (
        "20,50,100"
    ),
    model: ModelOption = "faces64",
    seed: SeedOption = 0,
    fit: Annotated[Fit, typer.Option(help="For images of another size.")] = Fit.resize,
    batch_size: BatchOption = None,
    devices: DevicesOption = None,
    several: HostsOption = False,
    out: Annotated[Path, typer.Option(help="The folder to write.")] = Path("evaluation"),
) -> None:
    """Compare samplers and numbers of steps over a set of clean images.

    Each is blurred with a kernel and a noise level drawn from SEED, restored once a cell of the
    grid, and scored. Writes results.csv, results.md and results.png to OUT; stopped and started
    again it goes on where it was.
    """
    from jaxdiff import data
    from jaxdiff.evaluate import evaluate as run
    from jaxdiff.evaluate import markdown

    try:
        counts = [int(part) for part in steps.split(",")]
    except ValueError:
        raise ValueError(
            f"--steps: expected numbers with commas, as 20,50,100, got {steps!r}"
        ) from None
    if source is not None and not source.is_dir():
        raise FileNotFoundError(f"{source}: no such folder of images")
    if several:
        hosts.join()
    cache_compiled_programs()
    names = [name.strip() for name in (samplers or ",".join(NAMES)).split(",")]
    unet, schedule = jd.load(model)
    size = unet.config.size
    if size is None or size[0] != size[1]:
        raise ValueError(f"--model: {model} is not for square images of one size")
    covariance = None
    if "spectral" in names:
        try:
            covariance = jd.SpectralCovariance.load(model)
        except FileNotFoundError:
            if samplers is not None:
                raise
            names.remove("spectral")
    rows = run(
        data.course_dataset(source, size[0], seed, fit.value),
        jd.Denoiser(unet, schedule),
        model=model,
        samplers=names,
        covariance=covariance,
        steps=counts,
        out=out,
        batch_size=batch_size,
        progress=sys.stderr.isatty(),
        sharding=hosts.spread(devices),
    )
    console.print(Markdown(markdown(rows)))
    console.print(f"{out}/results.csv, results.md, results.png")


@app.command()
def sample(
    n: Annotated[int, typer.Option(help="How many images.", min=1)] = 16,
    steps: StepsOption = 100,
    sampler: Annotated[Unconditional, typer.Option(help="The method.")] = Unconditional.ddpm,
    eta: Annotated[float, typer.Option(help="η of DDIM.")] = 0.0,
    model: ModelOption = "faces64",
    seed: SeedOption = 0,
    batch_size: BatchOption = None,
    devices: DevicesOption = None,
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("samples.png"),
) -> None:
    """Draw images from the prior, in a grid."""
    import jax
    import numpy as np

    from jaxdiff import data, plot

    if out.suffix.lower() != ".png":
        raise ValueError(f"--out: expected a name that ends in .png, got {out}")
    writable_parent(out)
    cache_compiled_programs()
    unet, schedule = jd.load(model)
    denoiser = jd.Denoiser(unet, schedule)
    method = jd.DDPM(denoiser) if sampler == "ddpm" else jd.DDIM(denoiser, eta)
    images = jd.sample(
        method,
        schedule.steps(steps),
        key=jax.random.key(seed),
        n=n,
        batch_size=batch_size,
        progress=sys.stderr.isatty(),
        sharding=hosts.spread(devices),
    )
    replace_file(out, lambda p: data.write_image(p, plot.grid(np.asarray(images))))
    console.print(f"{n} images, {steps} steps of {sampler.value}: {out}")


@app.command()
def calibrate(
    model: Annotated[str, typer.Argument(help="A diffusers folder, a hub id, or faces64.")],
    images: Annotated[
        Path | None,
        typer.Argument(
            help="Images that the prior should know: a folder, or an .npz of packed images; by "
            "default the prior's own samples."
        ),
    ] = None,
    n: Annotated[
        int | None,
        typer.Option(
            help="How many images, or samples.  [default: 256, or 64 samples]",
            min=1,
            show_default=False,
        ),
    ] = None,
    levels: Annotated[int, typer.Option(help="Noise levels.", min=2)] = 25,
    seed: SeedOption = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The folder to write; by default the model's, where it is one.", show_default=False
        ),
    ] = None,
) -> None:
    """Measure how wrong the prior's denoiser is: what the spectral sampler needs, once a model.

    Writes spectral_covariance.safetensors and spectral_covariance.png, beside the checkpoint where
    MODEL is a folder; diffusers still loads it.
    """
    import jax

    from jaxdiff import data, plot

    if out is None:
        if not Path(model).is_dir():
            raise ValueError(f"--out: {model} is no folder here: name the folder to write")
        out = Path(model)
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out: {out} is a file, name a folder")
    cache_compiled_programs()
    unet, schedule = jd.load(model)
    if unet.config.size is None:
        raise ValueError(f"{model} names no sample_size in its config")
    n = n or (64 if images is None else 256)
    known = None if images is None else data.load_images(images, unet.config.size, n=n)
    covariance = jd.SpectralCovariance.estimate(
        jd.Denoiser(unet, schedule),
        known,
        key=jax.random.key(seed),
        n=n,
        levels=levels,
        progress=sys.stderr.isatty(),
    )
    written = covariance.save(out)
    figure = plot.error_spectra(covariance)
    picture = written.with_suffix(".png")
    replace_file(picture, lambda p: figure.savefig(p, dpi=110, format="png"))
    source = f"{n} samples" if known is None else f"{len(known)} images of {images}"
    console.print(f"{source}, {len(covariance.timesteps)} noise levels: {written}, {picture.name}")


@app.command()
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
            help="The network: small, or a config.json of diffusers' UNet2DModel.  [default: small, or "
            "that of --init]",
            show_default=False,
        ),
    ] = None,
    init: Annotated[
        str | None, typer.Option(help="A checkpoint to start from.", show_default="random weights")
    ] = None,
    steps: Annotated[int, typer.Option(help="Updates of the weights.", min=1)] = 50_000,
    batch_size: Annotated[int, typer.Option(help="Images an update.", min=1)] = 32,
    learning_rate: Annotated[float, typer.Option(help="Its highest.")] = 3e-4,
    ema: Annotated[float, typer.Option(help="Decay of the averaged weights.")] = 0.9995,
    half_size: Annotated[
        float, typer.Option(help="The first part of the steps, at half the size.")
    ] = 0.3,
    flip: Annotated[bool, typer.Option(help="Mirror half of the images.")] = True,
    seed: SeedOption = 0,
    save_every: Annotated[int, typer.Option(help="Steps between checkpoints.", min=1)] = 1000,
    sample_every: Annotated[int, typer.Option(help="Steps between sample grids.", min=1)] = 5000,
    licence: Annotated[
        str, typer.Option(help='Of the images, for the model card: "CC-BY-4.0: FairFace, ...".')
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

    from jaxdiff.train import CONFIGS, Settings
    from jaxdiff.train import train as run

    settings = Settings(
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        ema=ema,
        half_size=half_size,
        flip=flip,
        seed=seed,
    )
    if several:
        hosts.join()
    if config is None and init is not None:
        described = jd.load(init)[0].config.to_dict()
    elif (config or "small") in CONFIGS:
        described = CONFIGS[config or "small"]
    elif config is not None and Path(config).is_file():
        described = read_json(Path(config))
    else:
        raise FileNotFoundError(
            f"--config: expected {', '.join(CONFIGS)} or a file, got {config!r}"
        )
    cache_compiled_programs()
    model = run(
        source,
        out,
        jd.UNet2DConfig.from_dict(described | {"sample_size": size}),
        settings,
        init=init,
        devices=devices,
        save_every=save_every,
        sample_every=sample_every,
        licence=licence,
        command=shlex.join(["jaxdiff", *sys.argv[1:]]),
        progress=sys.stderr.isatty(),
    )
    console.print(f"{model}, {out}/log.csv")


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="A diffusers folder, a hub id, or faces64.")],
    destination: Annotated[Path, typer.Argument(help="The folder to write.")],
    dtype: DtypeOption = "float32",
    force: ForceOption = False,
) -> None:
    """Rewrite a checkpoint as safetensors with today's names, flat, for jaxdiff and diffusers.

    Needs no torch. `python -m convert --verify`, in the repository, also compares with diffusers.
    """
    convert_checkpoint(source, destination, dtype, force)


def convert_checkpoint(source: str, destination: Path, dtype: str, force: bool) -> None:
    """Load and save, into a folder that is empty or was meant."""
    if dtype not in ("float32", "bfloat16", "float16"):
        raise ValueError(f"--dtype: expected float32, bfloat16 or float16, got {dtype!r}")
    if destination.exists() and not destination.is_dir():
        raise ValueError(f"{destination} is a file: name a folder")
    if destination.exists() and any(destination.iterdir()) and not force:
        raise ValueError(f"{destination} is not empty: name another folder or pass --force")
    with console.status(f"reading {source}"):
        unet, schedule = jd.load(source, dtype=dtype)
    with console.status(f"writing {destination}"):
        jd.save(destination, unet, schedule)
    console.print(f"{source} → {destination} ({dtype})")


def parse_sigma(text: str) -> float:
    """A number or a fraction such as 10/255."""
    numerator, slash, denominator = text.partition("/")
    try:
        value = float(numerator) / (float(denominator) if slash else 1)
    except (ValueError, ZeroDivisionError):
        raise ValueError(
            f"--sigma: expected a number such as 0.04 or 10/255, got {text!r}"
        ) from None
    if not 0 <= value < float("inf"):
        raise ValueError(f"--sigma: expected a finite number ≥ 0, got {text}")
    return value


def main() -> None:
    """The entry point of `jaxdiff`."""
    run_app(app)


if __name__ == "__main__":
    main()
