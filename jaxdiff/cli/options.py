"""The options that several commands have."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

_MODEL = (
    "The prior: photos64, faces64, a diffusers folder or hub id, a .pt of guided-diffusion, or a "
    ".pkl of EDM."
)
ModelOption = Annotated[str, typer.Option(help=_MODEL)]
ModelOfImagesOption = Annotated[
    str | None,
    typer.Option(
        "--model", help=_MODEL, show_default="photos64, and faces64 of the demonstration's portrait"
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="JSON of what the model's tensors do not say, such as num_head_channels.",
        show_default=False,
    ),
]
ClassLabelOption = Annotated[
    int | None,
    typer.Option(
        "--class-label",
        help="The class, of a class-conditional model: a number from 0.",
        show_default=False,
    ),
]
# JAX takes a seed by its lowest 32 bits.
SeedOption = Annotated[int, typer.Option(help="Seed of the noise.", min=0, max=2**32 - 1)]
StepsOption = Annotated[int, typer.Option(help="Network evaluations.", min=1)]
BatchOption = Annotated[
    int | None,
    typer.Option(help="Most samples at once.", min=1, show_default="what suits the device"),
]
DtypeOption = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]
DevicesOption = Annotated[
    int | None,
    typer.Option(help="Spread over so many devices of this host.", min=1, show_default="one"),
]
HostsOption = Annotated[
    bool,
    typer.Option(
        "--hosts",
        help="One of several processes, each with its share of the images: started by srun or "
        "mpirun, or with JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.",
    ),
]


class Precision(StrEnum):
    """Of products in float32 on GPU and TPU."""

    default = "default"
    high = "high"
    highest = "highest"


PrecisionOption = Annotated[
    Precision | None,
    typer.Option(
        help="Of float32 products on GPU and TPU: default (TF32, bfloat16), high, or highest.",
        show_default="JAX's own",
    ),
]
RematOption = Annotated[
    bool,
    typer.Option(
        "--remat",
        help="Half the temporary memory for a gradient through the network, a third more time.",
    ),
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Remove an earlier result in OUT first.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace files in the destination.")]
