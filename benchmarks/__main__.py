"""`python -m benchmarks`: jaxdiff beside diffusers in torch, one run, turn by turn.

Every contestant is a process of its own that is asked in turn; the medians of the turns make a
row's seconds, and torch's over jaxdiff's its ratios. Results go to a folder as JSON, markdown and a
plot; stopped and started again, a run goes on with the rows that are missing.
"""

import argparse
import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from flax import nnx
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.markdown import Markdown
from tqdm.auto import tqdm

import jaxdiff as jd
from benchmarks.contestants import NAMES, Workload
from jaxdiff.checkpoint import replace_file

ROOT = Path(__file__).parents[1]
CELEBAHQ = {
    "sample_size": 256,
    "block_out_channels": (128, 128, 256, 256, 512, 512),
    "down_block_types": (*("DownBlock2D",) * 4, "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", *("UpBlock2D",) * 4),
    "attention_head_dim": None,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
}


def workloads(quick: bool) -> list[Workload]:
    """What is measured; `quick` leaves the large network and the whole trajectories out."""
    few = [Workload("faces64", 64, m, b, 3) for m in ("ddpm", "dps", "pigdm") for b in (1, 8)]
    few += [Workload("faces64", 64, "forward", b, 1) for b in (1, 8)]
    if quick:
        return few
    more = [Workload("faces64", 64, m, 32, 2) for m in ("ddpm", "dps", "pigdm")]
    more += [Workload("faces64", 64, m, 32, 1) for m in ("forward", "train")]
    more += [Workload("faces64", 64, m, 1, 20) for m in ("ddpm", "dps", "pigdm")]
    large = [Workload("celebahq", 256, m, 1, 2) for m in ("ddpm", "dps", "pigdm")]
    large += [Workload("celebahq", 256, "forward", b, 1) for b in (1, 4)]
    return few + more + large


def measure(workload: Workload, names: list[str], folder: str, repeats: int) -> dict:
    """One row: for each contestant the median seconds, the first result's, and peak memory."""
    described = json.dumps(dataclasses.asdict(workload))
    processes = {}
    row: dict = {"workload": str(workload)}
    for name in names:  # one after the other: each has the machine for its first result
        command = [sys.executable, "-m", "benchmarks.contestants", name, folder, described]
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        processes[name] = process
        answer = _read(process)
        if answer is None:
            row[name] = None  # it can't: torch.compile without a compiler, say
            del processes[name]
        else:
            row[name] = {"first": answer}
    turns: dict[str, list[float]] = {name: [] for name in processes}
    for _ in range(repeats):
        for name, process in processes.items():
            print("run", file=process.stdin, flush=True)
            turns[name].append(_read(process) or float("nan"))
            time.sleep(0.05)
    for name, process in processes.items():
        assert process.stdin is not None
        process.stdin.close()
        row[name] |= {"seconds": statistics.median(turns[name]), "peak_mb": _read(process)}
        process.wait()
    return row


def _read(process) -> float | None:
    line = process.stdout.readline()
    return float(line) if line.strip() else None


def table(rows: list[dict], names: list[str]) -> str:
    """Seconds of jaxdiff, and how many times as long the others take."""
    lines = [
        "| workload | jaxdiff, s | " + " | ".join(f"{n}, ×" for n in names[1:]) + " | peak MB |"
    ]
    lines.append("|---|---:|" + "---:|" * len(names))
    for row in rows:
        ours = row["jaxdiff"]["seconds"]
        cells = [f"{row[n]['seconds'] / ours:.2f}" if row[n] else "–" for n in names[1:]]
        peaks = " / ".join(f"{row[n]['peak_mb']:.0f}" if row[n] else "–" for n in names)
        lines.append(f"| {row['workload']} | {ours:.3f} | " + " | ".join(cells) + f" | {peaks} |")
    return "\n".join(lines) + "\n"


def plot(rows: list[dict], names: list[str]) -> Figure:
    """A row a workload, a dot a contestant: its time over jaxdiff's."""
    figure = Figure((8, 0.8 + 0.3 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for name in names[1:]:
        found = [
            (i, r[name]["seconds"] / r["jaxdiff"]["seconds"]) for i, r in enumerate(rows) if r[name]
        ]
        if found:
            axis.plot([ratio for _, ratio in found], [i for i, _ in found], "o", label=name)
    axis.axvline(1, color="grey", linewidth=0.8)
    axis.set_yticks(range(len(rows)), [row["workload"] for row in rows], fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel("time over jaxdiff's (right of 1: jaxdiff is faster)")
    axis.legend(fontsize=8)
    return figure


def machine() -> str:
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}"
        for name in ("jax", "flax", "torch", "diffusers")
    )
    return (
        f"{datetime.date.today()}, {os.cpu_count()} cores ({platform.machine()}), Python "
        f"{platform.python_version()}, {versions}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Time jaxdiff beside diffusers in torch.")
    parser.add_argument("--quick", action="store_true", help="faces64 at batch 1 and 8 only")
    parser.add_argument("--repeats", type=int, default=5, help="turns (default 5)")
    parser.add_argument("--compile", action="store_true", help="torch.compile too (slow to start)")
    parser.add_argument("--out", type=Path, default=Path("benchmark"), help="the folder to write")
    arguments = parser.parse_args()
    names = [n for n in NAMES if arguments.compile or n != "torch.compile"]
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "results.json"
    done = {} if not path.exists() else {r["workload"]: r for r in json.loads(path.read_text())}
    chosen = workloads(arguments.quick)
    with tempfile.TemporaryDirectory() as folder:
        for name in {w.checkpoint for w in chosen}:
            loaded = jd.load("faces64")
            if name == "celebahq":  # its weights can't be had offline, and any take as long
                config = jd.UNet2DConfig.from_dict(CELEBAHQ)
                loaded = jd.UNet2D(config, rngs=nnx.Rngs(0)), jd.Schedule.from_config()
            jd.save(f"{folder}/{name}", *loaded)
            del loaded
        for workload in tqdm([w for w in chosen if str(w) not in done], unit="workload"):
            location = f"{folder}/{workload.checkpoint}"
            done[str(workload)] = measure(workload, names, location, arguments.repeats)
            text = json.dumps(list(done.values()), indent=1)
            replace_file(path, lambda p, text=text: Path(p).write_text(text + "\n"))
    rows = [done[str(w)] for w in chosen]
    written = machine() + "\n\n" + table(rows, names)
    (arguments.out / "RESULTS.md").write_text(written)
    plot(rows, names).savefig(arguments.out / "results.png", dpi=110)
    Console().print(Markdown(written))


if __name__ == "__main__":
    main()
