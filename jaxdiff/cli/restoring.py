"""`jaxdiff restore` and `evaluate`: what is done with a prior."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.markdown import Markdown

import jaxdiff as jd
from jaxdiff.cli.options import (
    BatchOption,
    DevicesOption,
    HostsOption,
    ModelOption,
    PrecisionOption,
    RematOption,
    SeedOption,
)
from jaxdiff.cli.terminal import cache_compiled_programs, console, errors
from jaxdiff.samplers.presets import NAMES, SPECTRAL
from jaxdiff.util import hosts


class Fit(StrEnum):
    """What to do with an image of another size."""

    resize = "resize"
    crop = "crop"


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
            help="Steps, each an evaluation of the network.  [default: 10 for spectral, 20 for the others]",
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
    remat: RematOption = False,
    precision: PrecisionOption = None,
    devices: DevicesOption = None,
    several: HostsOption = False,
    out: Annotated[Path, typer.Option(help="The folder to write.")] = Path("restored"),
) -> None:
    """Restore blurred, noisy or incomplete images; without arguments, a demonstration.

    Writes degraded.png, restored.png (the mean of the posterior samples), comparison.png and
    metrics.json to OUT, for a folder of images to a folder for each.
    """
    from jaxdiff.commands.restore import Settings, restore_images

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
        remat=remat,
        precision=precision,
    )
    if several:
        hosts.join()
    cache_compiled_programs()
    bad = restore_images(images, settings, out, console, hosts.spread(devices))
    for line in bad:
        errors.print(f"[red]error:[/red] {line}", markup=True)
    if bad:
        raise typer.Exit(2)


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
    remat: RematOption = False,
    precision: PrecisionOption = None,
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
    from jaxdiff.commands.evaluate import evaluate as run
    from jaxdiff.commands.evaluate import markdown

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
    if any(name in SPECTRAL for name in names):
        try:
            covariance = jd.SpectralCovariance.load(model)
        except FileNotFoundError:
            if samplers is not None:
                raise
            names = [name for name in names if name not in SPECTRAL]
    rows = run(
        data.course_dataset(source, size[0], seed, fit.value),
        jd.Denoiser(unet, schedule, remat=remat),
        model=model,
        samplers=names,
        covariance=covariance,
        steps=counts,
        out=out,
        batch_size=batch_size,
        progress=sys.stderr.isatty(),
        sharding=hosts.spread(devices),
        precision=precision,
    )
    if hosts.first():
        console.print(Markdown(markdown(rows)))
        console.print(f"{out}/results.csv, results.md, results.png")


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
