"""`jaxdiff restore` and `evaluate`: what is done with a prior."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.markdown import Markdown

from jaxdiff.cli.options import (
    BatchOption,
    ClassLabelOption,
    ConfigOption,
    DevicesOption,
    HostsOption,
    ModelOfImagesOption,
    ModelOption,
    OverwriteOption,
    PrecisionOption,
    RematOption,
    SeedOption,
)
from jaxdiff.cli.tables import restoration
from jaxdiff.cli.terminal import cache_compiled_programs, error, progress, say, show
from jaxdiff.commands.recipes import NOISES, OPERATORS, number, usage
from jaxdiff.samplers.presets import NAMES
from jaxdiff.util import hosts
from jaxdiff.util.names import printable


class Border(StrEnum):
    """What a measured blur gathered from beyond the picture."""

    unknown = "unknown"
    circular = "circular"


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
            "gaussian:SIZE,STD or motion:SIZE,SEED; or unknown:SIZE, which is found and written.",
            show_default="motion:9,0 with --degrade",
        ),
    ] = None,
    operator: Annotated[
        str | None,
        typer.Option(
            help=f"The camera: {usage(OPERATORS)}; or A@B, A after B. A KERNEL is as of --kernel, a "
            "FILE white where pixels are known, KEPT the share of them; ANGLES are how many.",
            show_default="the blur of --kernel",
        ),
    ] = None,
    sigma: Annotated[
        str | None,
        typer.Option(
            help="Standard deviation of the noise, image in [0, 1], as 10/255; auto estimates it "
            "from each measurement.",
            show_default="10/255 with --degrade, else auto",
        ),
    ] = None,
    noise: Annotated[
        str | None,
        typer.Option(
            help=f"The noise in place of --sigma: {usage(NOISES)}.", show_default="of --sigma"
        ),
    ] = None,
    degrade: Annotated[
        bool,
        typer.Option("--degrade", help="The images are clean: blur them first, and score."),
    ] = False,
    sampler: Annotated[
        str | None,
        typer.Option(
            help=f"One of {', '.join(NAMES)}.",
            show_default="spectral where the prior has been calibrated, but blind for an unknown kernel "
            "and daps for phase; where not, pigdm-paper for linear cameras and Gaussian noise, dps for others",
        ),
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(help="Guidance scale.", show_default="1, and 100 for dps-adaptive"),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Steps, each an evaluation of the network.",
            min=1,
            show_default="10 for spectral, 20 for pigdm-paper, 100 for pigdm, 124 for blind, 1000 for dps",
        ),
    ] = None,
    samples: Annotated[int, typer.Option(help="Posterior samples of each image.", min=1)] = 9,
    model: ModelOfImagesOption = None,
    config: ConfigOption = None,
    class_label: ClassLabelOption = None,
    seed: SeedOption = 0,
    fit: Annotated[
        Fit | None,
        typer.Option(
            help="Bring images to the size of the prior's: resize (cover, then cut) or crop (the "
            "middle).",
            show_default="each at its own size",
        ),
    ] = None,
    border: Annotated[
        Border,
        typer.Option(
            help="What a measured blur gathered beyond the picture: unknown light, as a real "
            "camera's, or circular, as what --degrade wrote."
        ),
    ] = Border.unknown,
    batch_size: BatchOption = None,
    remat: RematOption = False,
    precision: PrecisionOption = None,
    devices: DevicesOption = None,
    several: HostsOption = False,
    save_draws: Annotated[
        bool, typer.Option("--save-draws", help="Write the posterior samples, too: draw-1.png, ...")
    ] = False,
    overwrite: OverwriteOption = False,
    out: Annotated[Path, typer.Option(help="The folder to write.")] = Path("restored"),
) -> None:
    """Restore blurred, noisy or incomplete images; without arguments, a demonstration.

    Writes degraded.png, restored.png (the mean of the posterior samples), comparison.png and
    metrics.json to OUT, for a folder of images to a folder for each; restored-16bit.png and
    deviation-16bit.png (the samples' standard deviation) have 16 bits a channel. Of an
    unknown kernel, kernel.png, kernel.npy and kernel-deviation.npy are what was found. Stopped at
    any moment, the same command goes on where it was.
    """
    from jaxdiff.commands.restore import restore_images
    from jaxdiff.commands.task import Settings

    if kernel is not None and operator is not None:
        raise ValueError("--operator: name either it or --kernel, which means --operator blur:...")
    degrade = degrade or images is None
    if operator is None:
        operator = _of_kernel(kernel) if kernel else "blur:motion:9,0" if degrade else None
    if noise is not None and sigma is not None:
        raise ValueError("--noise: name either it or --sigma, which means --noise gaussian:SIGMA")
    gaussian = sigma or ("10/255" if degrade else "auto")
    if noise is not None and noise.startswith("gaussian:"):
        gaussian, noise = noise.removeprefix("gaussian:"), None
    settings = Settings(
        operator=operator,
        sigma=parse_sigma(gaussian) if noise is None else None,
        noise=noise,
        degrade=degrade,
        sampler=sampler,
        scale=scale,
        steps=steps,
        samples=samples,
        model=model or ("faces64" if images is None else "photos64"),
        config=None if config is None else str(config),
        class_label=class_label,
        seed=seed,
        fit=None if fit is None else fit.value,
        border=border.value,
        batch_size=batch_size,
        remat=remat,
        precision=precision,
        save_draws=save_draws,
    )
    with hosts.joined(several):
        cache_compiled_programs()
        report = restore_images(
            images,
            settings,
            out,
            overwrite=overwrite,
            progress=progress(),
            say=say,
            sharding=hosts.device_sharding(devices),
        )
        if hosts.first():
            show(report, *restoration(report, printable(out)))
    end_with(report["failed"])


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
            help=f"Of {', '.join(NAMES)}, with commas between.",
            show_default="the course's; spectral where the prior has been calibrated",
        ),
    ] = None,
    steps: Annotated[str, typer.Option(help="Network evaluations, with commas between.")] = (
        "20,50,100"
    ),
    model: ModelOption = "faces64",
    config: ConfigOption = None,
    class_label: ClassLabelOption = None,
    seed: SeedOption = 0,
    fit: Annotated[Fit, typer.Option(help="For images of another size.")] = Fit.resize,
    batch_size: BatchOption = None,
    remat: RematOption = False,
    precision: PrecisionOption = None,
    devices: DevicesOption = None,
    several: HostsOption = False,
    overwrite: OverwriteOption = False,
    out: Annotated[Path, typer.Option(help="The folder to write.")] = Path("evaluation"),
) -> None:
    """Compare samplers and numbers of steps over a set of clean images.

    Each is blurred with a kernel and a noise level drawn from SEED, restored once a cell of the
    grid, and scored. Writes results.csv, results.md and results.png to OUT; stopped and started
    again it goes on where it was.
    """
    from jaxdiff.commands.evaluate import evaluate_folder, markdown

    try:
        counts = [int(part) for part in steps.split(",")]
    except ValueError:
        raise ValueError(
            f"--steps: expected numbers with commas, as 20,50,100, got {steps!r}"
        ) from None
    names = None if samplers is None else [name.strip() for name in samplers.split(",")]
    with hosts.joined(several):
        cache_compiled_programs()
        rows, bad = evaluate_folder(
            source,
            model,
            names,
            counts,
            out,
            seed=seed,
            fit=fit.value,
            config=config,
            class_label=class_label,
            remat=remat,
            batch_size=batch_size,
            progress=progress(),
            sharding=hosts.device_sharding(devices),
            precision=precision,
            overwrite=overwrite,
        )
        if hosts.first():
            files = f"{printable(out)}/results.csv, results.md, results.png"
            show({"rows": rows, "failed": bad}, Markdown(markdown(rows)), files)
    end_with(bad)


def end_with(bad: list[str]) -> None:
    """A line for each bad image, and exit code 2 where there are any."""
    for line in bad:
        error(line)
    if bad:
        raise typer.Exit(2)


def _of_kernel(kernel: str) -> str:
    """The recipe of --kernel."""
    return kernel if kernel.partition(":")[0] == "unknown" else f"blur:{kernel}"


def parse_sigma(text: str) -> float | None:
    """A number or a fraction such as 10/255; None for auto."""
    if text == "auto":
        return None
    try:
        value = number(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(
            f"--sigma: expected a number such as 0.04 or 10/255, or auto, got {text!r}"
        ) from None
    if not 0 <= value < float("inf"):
        raise ValueError(f"--sigma: expected a finite number ≥ 0, got {text}")
    return value
