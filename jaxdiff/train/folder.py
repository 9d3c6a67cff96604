"""The folder of a run: what it is of, its log, its checkpoints."""

import dataclasses
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from jaxdiff.data.sources import files_of
from jaxdiff.util import fingerprint
from jaxdiff.util.files import read_csv
from jaxdiff.util.runs import Run

BEGINNING = 2**16  # bytes of an image file, which tell it from any other


def run_of(out: Path) -> Run:
    """The folder, which only a run of the same settings goes on in."""

    def results(found: Any) -> Iterable[Path]:
        steps = (p for p in (out / "checkpoints").glob("*") if p.name.isdigit())
        return [*steps, *out.glob("log.csv")]

    ours = ("pixels", "checkpoints", "model", "log.csv")
    return Run(out, "training run", results, ours=ours, replaceable=False)


def images_of(source: Path) -> dict[str, str]:
    """The fingerprint of the images, where they are still there: a run needs its pixels alone."""
    if not source.exists():
        return {}
    return {"images": fingerprint.of_files(files_of(source), BEGINNING)}


def read_log(out: Path) -> list[dict[str, Any]]:
    """The rows of log.csv, none where it is gone."""
    return read_csv(out / "log.csv", whole=("step",)) if (out / "log.csv").exists() else []


def restore_newest(manager: ocp.CheckpointManager, state: Any) -> Any:
    """The state of the newest checkpoint that is whole; that of the start where there is none.

    Raises:
        ValueError: where there are some and none can be read.
    """
    damaged = []
    for step in sorted(manager.all_steps(), reverse=True):
        try:
            found = manager.restore(step, args=ocp.args.StandardRestore(state))
        except Exception as e:  # many kinds, by what is damaged
            damaged.append((step, " ".join(str(e).split())[:200]))
            continue
        for newer, reason in damaged:
            warnings.warn(
                f"the checkpoint of step {newer} is damaged ({reason}): going on from step {step}",
                stacklevel=2,
            )
            manager.delete(newer)
        return found
    if damaged:
        raise ValueError(
            f"{manager.directory}: no checkpoint can be read, that of step {damaged[0][0]} for: "
            f"{damaged[0][1]}"
        )
    return state


def with_defaults(settings: Any) -> dict[str, Any]:
    """What an older release did not write of them: their defaults."""
    return dataclasses.asdict(type(settings)())
