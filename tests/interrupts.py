"""Commands stopped by Ctrl-C at random moments: `python -m tests.interrupts --tries 30`.

Right is: exit code 130 within two seconds, five where XLA compiles, with a line that says what is
kept as the last of stderr, and no traceback.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.jobs import photographs

ROOT = Path(__file__).parents[1]
LATEST = 5.0  # seconds from Ctrl-C to the end


def interrupt(
    tries: int, seed: int = 0, only: str = "", tell: Callable[[str], Any] = print
) -> list[str]:
    """Send Ctrl-C to the commands in turn; returns a line for each finding."""
    findings: list[str] = []
    moments = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        lines = {n: line for n, line in _lines(Path(folder)).items() if n.startswith(only)}
        for number in range(tries):
            name = list(lines)[number % len(lines)]
            line = lines[name]
            cache = Path(folder) / f"cache-{number}"  # it compiles each time
            line = line.replace("OUT", f"{folder}/out-{number}")
            moment = moments.uniform(0.15, 25)
            said, wait = _stop(line.split(), cache, moment)
            if said:
                findings.append(f"{name}, after {moment:.2f} s: {said}")
            tell(f"{name}, Ctrl-C after {moment:.2f} s: ended {wait:.2f} s later {said}")
    return findings


def _lines(folder: Path) -> dict[str, str]:
    photos = photographs(folder / "photos", 40, size=64)
    return {
        "restore": f"restore {photos} --degrade --sampler dps --steps 20 --samples 2 --out OUT",
        "sample": "sample --n 64 --steps 100 --out OUT.png",
        "evaluate": f"evaluate {photos} --steps 20,50 --out OUT",
        "train": f"train {photos} --steps 100000 --batch-size 8 --save-every 10 --out OUT",
    }


def _stop(line: list[str], cache: Path, moment: float) -> tuple[str, float]:
    """What is wrong, nothing where all is right, and the seconds that it took to end."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "jaxdiff.cli", *line],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        process.communicate(timeout=moment)
        return f"had ended before, exit code {process.returncode}", 0.0
    except subprocess.TimeoutExpired:
        pass
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    try:
        _, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return "did not end", 60.0
    wait = time.monotonic() - started
    last = (err.splitlines() or [""])[-1]
    if process.returncode != 130:
        return f"exit code {process.returncode}: {err[-500:]}", wait
    if "Traceback" in err or not last.startswith("stopped: "):
        return f"says {err[-500:]}", wait
    return "" if wait < LATEST else "too late", wait


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Stop commands by Ctrl-C at random moments.")
    parser.add_argument("--tries", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="one command, such as restore")
    options = parser.parse_args()
    found = interrupt(options.tries, options.seed, options.only)
    print(*found, sep="\n")
    sys.exit(bool(found))
