"""Inputs to the child, findings back."""

import collections
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.fuzz.mutate import mutate
from tests.fuzz.seeds import Seed, seeds

ROOT = Path(__file__).resolve().parents[2]


class Child:
    """A reading process, which is replaced by another once it has died or hung.

    Args:
        warm: of each reader a valid file, so that what libraries take at their first use is there
            before memory is limited.
    """

    def __init__(self, warm: dict[str, tuple[Path, bytes]]):
        self.warm = warm
        self.start()

    def start(self) -> None:
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "MALLOC_ARENA_MAX": "2",  # each would take address space ahead
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd=ROOT,
        )
        for reader, (path, content) in self.warm.items():
            path.write_bytes(content)
            self.ask(f"{reader} {path}", 120)
        self.ask("limit ", 120)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def ask(self, line: str, seconds: float) -> dict | str:
        """The report on a line; "hang" or "crash ..." where none comes."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            return f"hang: more than {seconds:g} s"
        answer = self.process.stdout.readline()
        return json.loads(answer) if answer else f"crash: exit code {self.process.wait()}"

    def read(self, reader: str, path: Path, content: bytes, seconds: float) -> dict | str:
        """The report on a file; a machine that is busy gets thrice the time, once more."""
        report: dict | str = ""
        for limit in (seconds, 3 * seconds):
            path.write_bytes(content)
            report = self.ask(f"{reader} {path}", limit)
            if isinstance(report, dict):
                break
            self.end()
            self.start()
            if report.startswith("crash"):
                break
        return report


def fuzz(
    inputs: int,
    seed: int = 0,
    only: str = "",
    seconds: float = 10,
    keep: Path | None = None,
    tell: Callable[[str], object] = print,
) -> list[str]:
    """Read `inputs` damaged files, and the valid ones; returns a line for each finding.

    Every kind of file has its turn, and within it every seed.

    Args:
        seed: of the changes; input i is a function of it and i.
        only: seeds whose name begins with it.
        seconds: a reading may take.
        keep: a folder for the inputs that were found wrong.
        tell: takes a line of progress now and then.
    """
    findings: list[str] = []
    counts: collections.Counter = collections.Counter()
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as folder:
        known = [s for s in seeds(Path(made)) if s.name.startswith(only)]
        if not known:
            raise ValueError(f"no seed's name begins with {only!r}")
        paths = [_write(s, Path(folder) / str(i)) for i, s in enumerate(known)]
        valid = [(s, p) for s, p in zip(known, paths) if "evil" not in s.name]
        child = Child({s.reader: (p, s.files[s.target]) for s, p in valid})
        kinds: dict[str, list[int]] = {}
        for place, case in enumerate(known):
            kinds.setdefault(case.name.split("-")[0], []).append(place)
        turns = list(kinds.values())
        for i in range(-len(known), inputs):
            turn = turns[i % len(turns)]
            chosen = i if i < 0 else turn[i // len(turns) % len(turn)]
            case, path = known[chosen], paths[chosen]
            content = case.files[case.target]
            if i >= 0:
                content = mutate(content, np.random.default_rng([seed, i]))
            report = child.read(case.reader, path, content, seconds)
            wrong = _judge(report, path, must_read=i < 0 and "evil" not in case.name)
            if wrong:
                findings.append(f"{case.name}, input {i}: {wrong}")
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{case.name}-{i}{path.suffix}").write_bytes(content)
            counts["read" if isinstance(report, dict) and not report["error"] else "refused"] += 1
            if i > 0 and i % 500 == 499:
                tell(f"{i + 1} inputs, {len(findings)} findings")
        child.end()
    tell(f"{inputs} inputs of {len(known)} seeds: {dict(counts)}, {len(findings)} findings")
    return findings


def _write(case: Seed, folder: Path) -> Path:
    folder = folder / "x"
    folder.mkdir(parents=True)
    for name, content in case.files.items():
        (folder / name).write_bytes(content)
    return folder / case.target


def _judge(report: dict | str, path: Path, must_read: bool) -> str | None:
    if isinstance(report, str):
        return report
    text = f"{report['error']} at {report.get('place')}: {report['message'][:300]}"
    if report["forbidden"]:
        return f"did {report['forbidden']}"
    if report["error"] is None:
        return None
    if must_read:
        return f"a valid file is refused, {text}"
    if report["memory"]:
        return f"out of memory, {text}"
    if not report["allowed"]:
        return f"the wrong exception, {text}"
    if path.name not in report["message"] and path.parent.name not in report["message"]:
        return f"does not name the file, {text}"
    if "\n" in report["message"] or len(report["message"]) > 2000:
        return f"not one line, {text}"
    return None
