"""`python -m benchmarks`: jaxdiff beside its torch and JAX peers, one run, turn by turn.

Every contestant is a process of its own that is asked in turn; then jaxdiff and torch are, in one
process: less kind to who comes after torch, whose threads spin for a while. A row's seconds are
the median of the turns, its ratios the median over the turns of another's seconds over jaxdiff's of the same turn:
a shared machine is slower for a while and faster again. A product of large matrices is asked in
the same turns: what the machine could do. Results go to a folder as JSON, markdown and a plot;
stopped and started again, a run goes on with the rows that are missing.
"""

import argparse
import dataclasses
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
from flax import nnx
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.markdown import Markdown
from tqdm.auto import tqdm

import jaxdiff as jd
from benchmarks.contestants import METHODS, PACKAGES, SAMPLERS, Workload
from jaxdiff.util.files import replace_file

ROOT = Path(__file__).parents[1]
TOGETHER = ("jaxdiff", "torch", "torch channels_last")
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
    """What is measured, whole calls; `quick` leaves the large network and batches out."""

    def rows(checkpoint: str, size: int, batch: int, steps: int) -> list[Workload]:
        once = [Workload(checkpoint, size, "forward", batch)]
        return once + [Workload(checkpoint, size, m, batch, steps) for m in SAMPLERS]

    few = rows("faces64", 64, 1, 10) + rows("faces64", 64, 8, 10)
    if quick:
        return few
    batch = [*rows("faces64", 64, 32, 4), Workload("faces64", 64, "train", 32)]
    large = [*rows("celebahq", 256, 1, 2), Workload("celebahq", 256, "dps", 1, 2, remat=True)]
    return few + batch + large + rows("celebahq", 256, 4, 1)[1:]


def _large(workload: Workload) -> bool:
    return workload.size > 64 or workload.batch > 8


def contestants(workload: Workload, compiled: bool) -> list[str]:
    """Who can do it here; the peers are left out of the large network's rows and of batches of 32."""
    names = [name for name, methods in METHODS.items() if workload.method in methods]
    names = [n for n in names if n not in PACKAGES or importlib.util.find_spec(PACKAGES[n])]
    if _large(workload):
        names = [n for n in names if n not in PACKAGES]
    return [n for n in names if n != "torch.compile" or compiled]


def measure(workload: Workload, names: list[str], folder: str, repeats: int) -> dict:
    """One row: for each contestant the seconds of its turns, those to its first result, its peak memory."""
    row: dict[str, Any] = {"workload": str(workload), **dataclasses.asdict(workload)}
    row["gflop"] = count_gflop(workload, folder)
    processes = {}
    with tempfile.TemporaryDirectory() as cache:
        for name in [*names, "gemm"]:  # one after the other: each has the machine for itself
            process, seconds = _start(name, folder, workload, cache)
            first = [seconds]
            if process is not None and name == "jaxdiff":  # again: its programs are kept on disk
                _stop(process)
                process, seconds = _start(name, folder, workload, cache)
                first.append(seconds)
            row[name] = None if process is None else {"first": first}
            if process is not None:
                processes[name] = process
    turns: dict[str, list[float]] = {name: [] for name in processes}
    for _ in range(repeats):
        for name, process in processes.items():
            turns[name].append(_ask(process, name))
            time.sleep(0.05)
    for name, process in processes.items():
        row[name] |= {"turns": turns[name], "peak_mb": _stop(process)}
    row["gemm"] = statistics.median(turns["gemm"])  # which answers in GFLOP/s
    able = [name for name in TOGETHER if row.get(name)]
    row["together"] = measure_together(workload, able, folder, repeats) if able[1:] else {}
    return row


def measure_together(workload: Workload, names: list[str], folder: str, repeats: int) -> dict:
    """The seconds of their turns, all in one process and without a pause."""
    found: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as cache:
        process, _ = _start(",".join(names), folder, workload, cache)
        for _ in range(2 * len(names[1:])):  # the others are able, and warm
            process.stdout.readline()
        for _ in range(repeats):
            for name in names:
                found[name].append(_ask(process, name))
        _stop(process)
    return found


def _ask(process, name: str) -> float:
    """What a contestant answers in its turn."""
    print(name, file=process.stdin, flush=True)
    return float(process.stdout.readline() or "nan")


def _start(name: str, folder: str, workload: Workload, cache: str) -> tuple[Any, float]:
    """A contestant that is warm, None where it can't; and the seconds to its first result."""
    started = time.perf_counter()
    described = json.dumps(dataclasses.asdict(workload))
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.contestants", name, folder, described],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"XDG_CACHE_HOME": cache, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
    )
    assert process.stdout is not None
    able = process.stdout.readline().strip() == "first"
    seconds = time.perf_counter() - started
    process.stdout.readline()  # it is warm
    if not able:
        _stop(process)
    return process if able else None, seconds


def _stop(process) -> float:
    """Let it end; its peak memory in MB."""
    with process:  # which closes its pipes and waits
        process.stdin.close()
        return float(process.stdout.readline() or "nan")


def count_gflop(workload: Workload, folder: str) -> float:
    """Of the network's layers as diffusers computes them, two for a multiplication with its addition.

    A guided step is the network and its gradient to the input, twice the network; an update three
    times. How few of them a contestant really does is its own business.
    """
    import torch
    from diffusers.models.unets.unet_2d import UNet2DModel
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model: Any = UNet2DModel  # whose methods are typed as giving dictionaries or pairs
        unet = model.from_config(model.load_config(folder))
        unet(torch.zeros(1, 3, workload.size, workload.size), 500)
    passes = {"dps": 2, "pigdm": 2, "train": 3}.get(workload.method, 1)
    return counter.get_total_flops() / 1e9 * passes * workload.batch * workload.steps


def ratio(row: dict, name: str) -> float:
    """How many times as long as jaxdiff it takes."""
    return _over(row[name]["turns"], row["jaxdiff"]["turns"])


def _over(theirs: list[float], ours: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(theirs, ours, strict=True))


def _ratios(row: dict, name: str) -> str:
    """Apart and, where it was measured, in one process."""
    if not row.get(name):
        return "–"
    together = row["together"]
    less_kind = f" ({_over(together[name], together['jaxdiff']):.2f})" if name in together else ""
    return f"{ratio(row, name):.2f}{less_kind}"


def from_a_shell(repeats: int) -> dict[str, float]:
    """Seconds of `jaxdiff restore` for one image, a process each: nothing on disk yet, then again."""
    seconds: dict[str, list[float]] = {"cold": [], "warm": []}
    command = [sys.executable, "-m", "jaxdiff.cli", *"restore --samples 1 --out".split()]
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            for kind in seconds:
                started = time.perf_counter()
                environment = os.environ | {"XDG_CACHE_HOME": f"{folder}/cache"}
                subprocess.run(
                    [*command, kind], cwd=folder, env=environment, capture_output=True, check=True
                )
                seconds[kind].append(time.perf_counter() - started)
    return {kind: statistics.median(values) for kind, values in seconds.items()}


def table(rows: list[dict], names: list[str]) -> str:
    """How many times as long as jaxdiff the others take; and what jaxdiff reaches."""
    others = [name for name in names if name != "jaxdiff" and any(row.get(name) for row in rows)]
    head = ["workload", "jaxdiff, s", *(f"{n}, ×" for n in others), "GFLOP/s", "of GEMM"]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for row in rows:
        ours = statistics.median(row["jaxdiff"]["turns"])
        ratios = [_ratios(row, n) for n in others]
        speed = row["gflop"] / ours
        cells = [
            row["workload"],
            f"{ours:.3f}",
            *ratios,
            f"{speed:.0f}",
            f"{speed / row['gemm']:.2f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def costs(rows: list[dict], names: list[str]) -> str:
    """Seconds to the first result, jaxdiff's cold and warm, and the peak of memory."""
    shown = [name for name in names if any(row.get(name) for row in rows)]
    head = ["workload", *(f"{n}, s" for n in shown), *(f"{n}, MB" for n in shown)]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for row in rows:
        found = [row.get(name) for name in shown]
        first = [" / ".join(f"{s:.1f}" for s in f["first"]) if f else "–" for f in found]
        peaks = [f"{f['peak_mb']:.0f}" if f and f["peak_mb"] else "–" for f in found]
        lines.append("| " + " | ".join([row["workload"], *first, *peaks]) + " |")
    return "\n".join(lines) + "\n"


def plot(rows: list[dict], names: list[str]) -> Figure:
    """A row a workload, a dot a contestant: its time over jaxdiff's; hollow where all are in one process."""
    figure = Figure((8, 0.8 + 0.25 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for name in names[1:]:
        found = [(i, row) for i, row in enumerate(rows) if row.get(name)]
        if not found:
            continue
        at = [i for i, _ in found]
        (dots,) = axis.plot([ratio(row, name) for _, row in found], at, "o", label=name)
        both = [(i, row["together"]) for i, row in found if name in row["together"]]
        less_kind = [_over(turns[name], turns["jaxdiff"]) for _, turns in both]
        axis.plot(less_kind, [i for i, _ in both], "o", mfc="none", color=dots.get_color())
    axis.axvline(1, color="grey", linewidth=0.8)
    axis.set_yticks(range(len(rows)), [row["workload"] for row in rows], fontsize=8)
    axis.invert_yaxis()
    axis.set_xlim(left=0)
    axis.set_xlabel(
        "time over jaxdiff's (right of 1: jaxdiff is faster; hollow: all in one process)"
    )
    axis.legend(fontsize=8, loc="lower left")
    return figure


def machine() -> str:
    found = []
    for name in ("jax", "flax", "torch", "diffusers", "azula", "diffuse-jax"):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return (
        f"{datetime.date.today()}, {_device()}{os.cpu_count()} cores ({_processor()}), Python "
        f"{platform.python_version()}, {', '.join(found)}."
    )


def _device() -> str:
    device = jax.devices()[0]
    return "" if device.platform == "cpu" else f"{device.device_kind}, "


def _processor() -> str:
    """What the kernel calls it, where it says."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.machine()
    found = re.search(r"^model name\s*:\s*(.*)$", text, re.MULTILINE)
    return found[1] if found else platform.machine()


def report(rows: list[dict], shell: dict[str, float] | None) -> str:
    names = list(METHODS)
    gemm = statistics.median(row["gemm"] for row in rows)
    parts = [
        f"{machine()} A product of square matrices by torch, between the turns: {gemm:.0f} GFLOP/s.",
        "How many times as long as jaxdiff the others take (medians over the turns; above 1 jaxdiff "
        "is faster), each in a process of its own (and all in one). GFLOP/s count the layers as "
        "diffusers computes them: fewer are done (Winograd).",
        table(rows, names).strip(),
        "Seconds from the start of a process to its first result (jaxdiff: with nothing on disk / "
        "with its compiled programs), and the peak of its memory, jaxdiff's of the second: resident, or "
        "of a GPU where there is one.",
        costs(rows, names).strip(),
    ]
    if shell is not None:
        parts.append(
            f"`jaxdiff restore --samples 1` from a shell, import to pictures: {shell['cold']:.1f} s "
            f"with nothing on disk, {shell['warm']:.1f} s the second time."
        )
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Time jaxdiff beside its peers.")
    parser.add_argument("--quick", action="store_true", help="faces64 at batch 1 and 8 only")
    parser.add_argument("--only", default="", help="rows whose name holds this regular expression")
    parser.add_argument(
        "--repeats", type=int, default=5, help="turns (default 5, 3 where one is long)"
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile too (slow to start)")
    parser.add_argument("--out", type=Path, default=Path("benchmark"), help="the folder to write")
    arguments = parser.parse_args()
    # On a GPU this process too would take most of the memory, and leave none to the contestants.
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "results.json"
    kept = json.loads(path.read_text()) if path.exists() else {"rows": [], "shell": None}
    done = {row["workload"]: row for row in kept["rows"]}
    every = workloads(arguments.quick)
    chosen = [w for w in every if re.search(arguments.only, str(w))]

    def save() -> None:
        """After every row: a run that is stopped leaves a report of what it has."""
        rows = [done[str(w)] for w in workloads(False) if str(w) in done]
        text = json.dumps({"rows": rows, "shell": kept["shell"]}, indent=1)
        replace_file(path, lambda p: Path(p).write_text(text + "\n", encoding="utf-8"))
        if rows:
            written = report(rows, kept["shell"])
            replace_file(
                arguments.out / "RESULTS.md",
                lambda p: Path(p).write_text(written, encoding="utf-8"),
            )
            figure = plot(rows, list(METHODS))
            replace_file(arguments.out / "results.png", lambda p: figure.savefig(p, dpi=110))

    if kept["shell"] is None:
        kept["shell"] = from_a_shell(3)
        save()
    with tempfile.TemporaryDirectory() as folder:
        for name in {w.checkpoint for w in chosen if str(w) not in done}:
            loaded = jd.load("faces64")
            if name == "celebahq":  # its weights can't be had offline, and any take as long
                config = jd.UNet2DConfig.from_dict(CELEBAHQ)
                loaded = jd.UNet2D(config, rngs=nnx.Rngs(0)), jd.Schedule.from_config()
            jd.save(f"{folder}/{name}", *loaded)
            del loaded
        for workload in tqdm([w for w in chosen if str(w) not in done], unit="workload"):
            repeats = min(arguments.repeats, 3) if _large(workload) else arguments.repeats
            location = f"{folder}/{workload.checkpoint}"
            names = contestants(workload, arguments.compile)
            done[str(workload)] = measure(workload, names, location, repeats)
            save()
    save()
    Console().print(Markdown((arguments.out / "RESULTS.md").read_text()))


if __name__ == "__main__":
    main()
