"""Commands killed at random moments: `python -m tests.kills --kills 100`.

Right is: nothing is lost but the work since the last image, row or checkpoint, nothing is half
written, and the same command again ends with what it would have written undisturbed.
"""

import argparse
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.jobs import Contents, Job, contents, jobs

IN_A_ROW = 8  # kills of one folder before it may end


def kill(
    count: int,
    seed: int = 0,
    only: str = "",
    images: int = 6,
    tell: Callable[[str], Any] = print,
) -> list[str]:
    """Kill the commands in turn, `count` times in all; returns a line for each finding.

    Args:
        seed: of the moments.
        only: a command whose turn it always is.
        images: how many the commands are given.
        tell: takes lines of progress.
    """
    findings: list[str] = []
    moments = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        known = {n: job for n, job in jobs(root, images).items() if n.startswith(only)}
        undisturbed = {name: _undisturbed(job, root) for name, job in known.items()}
        done = rounds = 0
        while done < count:
            job = known[list(known)[rounds % len(known)]]
            out = root / f"{job.name}-{rounds}"
            rounds += 1
            try:
                most = min(IN_A_ROW, count - done)
                done += _round(job, out, most, moments, *undisturbed[job.name], root / "cache")
            except (AssertionError, ValueError, OSError) as e:
                done += 1
                findings.append(f"{job.name}, {out.name}: {type(e).__name__}: {e}")
            tell(f"{done} kills, {len(findings)} findings: {job.name}")
    return findings


def _undisturbed(job: Job, root: Path) -> tuple[int, set, set, Contents]:
    """How often it changes its folder, what is done at first and in the end, and what it wrote."""
    out = root / f"{job.name}-whole"
    changes = job.run(out, root / "cache")
    assert changes
    first = job.done(job.before) if job.before is not None else set()
    return changes, first, job.done(out), contents(out)


def _round(
    job: Job,
    out: Path,
    most: int,
    moments: random.Random,
    changes: int,
    first: set,
    last: set,
    expected: Contents,
    cache: Path,
) -> int:
    """Kill it at most so often, then let it end; returns how often it was killed."""
    found, kills = first, 0
    while job.run(out, cache, 1 + changes * moments.random() ** 2 if kills < most else 0) is None:
        kills += 1
        before, found = found, job.done(out) if out.exists() else first
        assert found <= first | last, f"after kill {kills}: {found - last} is of no command"
        assert found & last >= before & last, f"after kill {kills}: {before - found} is lost"
    now = contents(out)
    differ = [n for n in sorted(expected.keys() | now.keys()) if expected.get(n) != now.get(n)]
    assert not differ, f"ends with another {', '.join(differ)}"
    return kills


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Kill commands at random moments.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="one command, such as restore")
    parser.add_argument("--images", type=int, default=6, help="that the commands are given")
    options = parser.parse_args()
    found = kill(options.kills, options.seed, options.only, options.images)
    print(*found, sep="\n")
    sys.exit(bool(found))
