"""`python -m convert SRC DST [--verify]`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from jaxdiff.cli.options import ConfigOption, DtypeOption, ForceOption
from jaxdiff.cli.priors import convert_checkpoint
from jaxdiff.cli.terminal import application, command, fail, run_app
from jaxdiff.util.files import read_json

app = application(add_completion=False)


@app.command()
@command
def convert(
    source: Annotated[str, typer.Argument(help="A diffusers folder, a hub id, or a .pt.")],
    destination: Annotated[Path, typer.Argument(help="The folder to write.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare with torch, block by block.")
    ] = False,
    dtype: DtypeOption = "float32",
    config: ConfigOption = None,
    force: ForceOption = False,
) -> None:
    """Convert a checkpoint to a folder of diffusers and, with --verify, print a parity report."""
    convert_checkpoint(source, destination, dtype, force, config)
    if not verify:
        return
    from convert.verify import TOLERANCE
    from convert.verify import verify as compare

    console, fields = Console(), None if config is None else read_json(config)
    passed = True
    for precision, tolerance in TOLERANCE.items():
        with console.status(f"comparing in {precision}"):
            rows = compare(source, destination, precision, fields)
        table = Table("block", title=f"{precision}: jaxdiff against torch at t = 500")
        for column in ("max |Δ|", "mean |Δ|", "max |Δ| / max |x|"):
            table.add_column(column, justify="right")
        for row in rows:
            table.add_row(row["block"], *(f"{row[k]:.2e}" for k in ("max", "mean", "relative")))
        console.print(table)
        passed = passed and rows[-1]["relative"] <= tolerance
    if not passed:
        fail(f"{destination}: differs from torch by more than rounding ({TOLERANCE})")
    console.print("the output agrees: " + ", ".join(f"{k} ≤ {v:g}" for k, v in TOLERANCE.items()))


if __name__ == "__main__":
    run_app(app)
