"""One contestant's process on a GPU: it prepares, waits for its turn, and answers with JSON lines."""

import argparse
import contextlib
import gc
import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.contestants import COMPILED, Workload, contestant, peak_mb


def started(name: str, row: Workload, folder: Path) -> Callable[[], Any]:
    """A row's work, done once: compiled, and its data in place."""
    run = contestant(name, row, str(folder / row.checkpoint))
    run()
    return run


def time_turns(run: Callable[[], Any]) -> list[float]:
    """Seconds of two to nine runs, for about a second."""
    turns: list[float] = []
    while len(turns) < 2 or (sum(turns) < 1 and len(turns) < 9):
        began = time.perf_counter()
        run()
        turns.append(time.perf_counter() - began)
    return turns


def known_options() -> None:
    """jaxdiff leaves out a compiler's option that this JAX has not: here it would be measured for nothing."""
    from jaxdiff.util.platform import choices, compiler_options

    if unknown := choices().options.keys() - compiler_options().keys():
        raise ValueError(f"this JAX has no {', '.join(unknown)}")


def measure(name: str, row: Workload, folder: Path) -> dict[str, Any]:
    if name.startswith("jaxdiff,"):
        known_options()
    began = time.perf_counter()
    run = started(name, row, folder)
    first = time.perf_counter() - began
    if name == "gemm":
        return {"gflops": max(run() for _ in range(9))}
    turns = time_turns(run)
    seconds = statistics.median(turns) / row.steps
    return {"seconds": seconds, "turns": len(turns), "first": first, "peak_mb": peak_mb(name)}


def release(name: str) -> None:
    """torch's memory, for the next row and for the others."""
    gc.collect()
    if name.startswith("torch"):
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def compile_all(name: str, rows: list[Workload], folder: Path) -> None:
    """Beside each other, each run once; one that fails here will say so in its turn."""

    def attempt(row: Workload) -> None:
        with contextlib.suppress(Exception):
            started(name, row, folder)

    with ThreadPoolExecutor(8 if name.startswith("jaxdiff") else 1) as pool:
        list(pool.map(attempt, rows))
    release(name)


def main() -> None:
    parser = argparse.ArgumentParser(description="One contestant; see benchmarks/accelerator.sh.")
    parser.add_argument("name")
    parser.add_argument("folder", type=Path, help="of the networks")
    parser.add_argument("rows", help="JSON, a list of workloads")
    parser.add_argument("--compiling", action="store_true", help="only fill JAX's cache on disk")
    arguments = parser.parse_args()
    name, folder = arguments.name, arguments.folder
    rows = [Workload(**described) for described in json.loads(arguments.rows)]
    importlib.import_module("jaxdiff")  # which takes its time, and none of the GPU

    with contextlib.redirect_stdout(sys.stderr):  # stdout is for the answers
        if arguments.compiling:
            compile_all(name, rows, folder)
        elif name in COMPILED:  # torch's programs stay in its process: the fewest images will do
            compile_all(name, [r for r in rows if r.batch == rows[0].batch], folder)
    print("ready", flush=True)
    seconds = float(sys.stdin.readline() or 0)
    end = time.monotonic() + seconds
    for number, row in enumerate(rows):
        if time.monotonic() > end:
            break
        try:
            with contextlib.redirect_stdout(sys.stderr):
                answer = measure(name, row, folder)
        except Exception as e:  # most of all, a batch that does not fit
            answer = {"error": f"{type(e).__name__}: {' '.join(str(e).split())[:120]}"}
        release(name)
        print(json.dumps({"row": number} | answer), flush=True)


if __name__ == "__main__":
    main()
