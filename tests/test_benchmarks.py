"""The benchmark measures what it says: small, but whole."""

import dataclasses
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jaxdiff as jd
from benchmarks.__main__ import (
    contestants,
    costs,
    count_gflop,
    measure,
    plot,
    ratio,
    report,
    table,
    workloads,
)
from benchmarks.accelerator import pack
from benchmarks.accelerator.report import report as accelerator_report
from benchmarks.accelerator.sessions import VARIANTS, sessions
from benchmarks.contestants import COMPILED, METHODS, Workload
from jaxdiff.data.images import packed_files
from jaxdiff.util.platform import Choices, known

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_row(tiny):
    """Two contestants in turns, each in its process; jaxdiff started cold and again."""
    workload = Workload("tiny", 64, "ddpm", 1, 2)
    row = measure(workload, ["jaxdiff", "torch"], str(tiny), repeats=3)
    assert len(row["jaxdiff"]["first"]) == 2 and len(row["torch"]["first"]) == 1
    for name in ("jaxdiff", "torch"):
        assert len(row[name]["turns"]) == 3 and all(0 < t < 60 for t in row[name]["turns"])
        assert 50 < row[name]["peak_mb"] < 4000
    assert row["gemm"] > 1 and row["gflop"] > 0
    assert set(row["together"]) == {"jaxdiff", "torch"}
    assert all(len(turns) == 3 and min(turns) > 0 for turns in row["together"].values())
    assert "| tiny 64², ddpm, batch 1, 2 steps |" in table([row], list(METHODS))
    assert "tiny" in costs([row], list(METHODS)) and ratio(row, "jaxdiff") == 1
    assert plot([row], list(METHODS)).axes


def test_operations_are_counted_of_the_network_at_hand(tiny, faces64, tmp_path):
    workload = Workload("faces64", 64, "ddpm", 1, 2)
    jd.save(tmp_path, *faces64)
    count = count_gflop(workload, str(tmp_path))
    assert 3 < count < 7 and count_gflop(workload, str(tiny)) < count / 10


def test_who_takes_part():
    every = workloads(quick=False)
    assert len({str(w) for w in every}) == len(every)
    assert {w.method for w in every} == {"forward", "ddpm", "dps", "pigdm", "train"}
    for workload in every:
        assert {"jaxdiff", "torch", "torch channels_last"} <= set(contestants(workload, False))
    assert "diffuse-jax" not in contestants(Workload("faces64", 64, "pigdm", 1), True)


def test_the_kept_results_are_those_of_the_report():
    """RESULTS.md holds the tables of results.json, every row of them."""
    kept = json.loads((ROOT / "benchmarks/results/results.json").read_text())
    text = (ROOT / "benchmarks/RESULTS.md").read_text()
    for line in report(kept["rows"], kept["shell"]).splitlines():
        if line.startswith(("| ", "`jaxdiff restore")):
            assert line in text


def test_a_contestant_that_cannot(tiny):
    assert measure(Workload("tiny", 64, "ddpm", 1), ["nobody"], str(tiny), 1)["nobody"] is None


def test_what_runs_on_an_accelerator(tmp_path):
    """The script that is prepared for one, on this CPU: every part, its table, and the trained model."""
    out = tmp_path / "out"
    settings = {"ACCELERATOR_DRY": "1", "PYTHON": sys.executable, "WHEELS": str(tmp_path)}
    settings["XLA_FLAGS"] = ""  # one device, as there
    done = subprocess.run(
        ["bash", "benchmarks/accelerator.sh", str(out)],
        cwd=ROOT,
        env=os.environ | settings,
        capture_output=True,
        text=True,
    )
    log = (out / "log.txt").read_text()
    assert done.returncode == 0, done.stdout + log
    text = (out / "report.md").read_text()
    assert "passed, 0 failed." in text and "**Tests on the GPU**: 0" not in text
    assert "| tiny 16², dps, batch 3, 2 steps |" in text and "| tiny 16², spectral, batch" in text
    assert "not ready" not in text and '"error"' not in (out / "results.jsonl").read_text()
    for title in ("Precision and invariance", "Memory", "Profile", "Training"):
        assert f"**{title}**" in text
    assert {path.name for path in out.iterdir()} >= {"report.md", "results.jsonl", "log.txt"}
    pieces = b"".join(path.read_bytes() for path in sorted(out.glob("model.tar.*")))
    subprocess.run(["tar", "x", "-C", tmp_path], input=pieces, check=True)
    assert jd.load(tmp_path / "model")[0].config.size == (16, 16)


def test_what_is_asked_on_an_accelerator():
    """Nobody twice, in batches of both networks; the choices are those that there are."""
    every = [(s.name, str(r)) for s in sessions() for r in s.rows]
    assert len(set(every)) == len(every)
    for name in ("jaxdiff", "torch", "torch channels_last", "torch.compile"):
        asked = {(r.checkpoint, r.batch, r.dtype, r.method) for s in sessions() for r in s.rows if s.name == name}  # fmt: skip
        for method in ("ddpm", "dps"):
            for dtype in ("float32", "bfloat16"):
                assert {("celebahq", b, dtype, method) for b in (8, 32)} <= asked
                assert {("faces64", b, dtype, method) for b in (32, 256)} <= asked
    assert set(COMPILED) <= {s.name for s in sessions()}
    for choices, _ in VARIANTS.values():
        chosen = dataclasses.replace(Choices(), **choices)
        assert all(known(name, value) for name, value in chosen.options.items())


def test_the_report_of_an_accelerator(tmp_path):
    """Ratios are another's seconds over jaxdiff's; what did not fit or was late is said."""
    about = {"workload": "w", "method": "ddpm", "dtype": "float32", "batch": 1}
    of = about | {"part": "sampling", "first": 1.0}
    lines = [
        of | {"contestant": "jaxdiff", "seconds": 0.002},
        of | {"contestant": "torch", "seconds": 0.005},
        of | {"contestant": "jaxdiff, unrolled", "seconds": 0.001},
        about | {"part": "sampling", "contestant": "torch.compile", "error": "OutOfMemoryError"},
        {
            "part": "sampling",
            "contestant": "torch.compile max-autotune",
            "error": "not ready in time",
        },
        {"part": "memory", "contestant": "torch", "batch": 1, "remat": False, "peak_mb": 300.0},
        {"part": "memory", "contestant": "torch", "batch": 8, "remat": False, "peak_mb": 1000.0},
        {"part": "memory", "limit_mb": 2000.0},
    ]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = accelerator_report(tmp_path)
    assert "| w | 2.00 | 1.0 | 2.50 | does not fit | – |" in text
    assert "| w | unrolled | 0.50 |" in text
    assert "torch.compile max-autotune: not ready in time." in text
    assert "| torch | 300 MB of 1, 1000 MB of 8 | 18 |" in text  # 200 MB and 100 an image
    assert accelerator_report(tmp_path / "nothing") == "\n"


def test_photographs_that_can_be_carried(tmp_path, monkeypatch):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((30, 60, 3), np.uint8) + 99).save(buffer, "PNG")
    content = np.frombuffer(buffer.getvalue(), np.uint8)
    arrays = {"bytes": content, "offsets": np.array([0, len(content)])}
    splits = {f"{split}_{k}": v for split in ("train", "val") for k, v in arrays.items()}
    np.savez(tmp_path / "a.npz", **splits)
    monkeypatch.setattr(sys, "argv", ["pack", *(str(tmp_path / n) for n in ("a.npz", "b.npz")), "--side", "20"])  # fmt: skip
    pack.main()
    (packed,) = packed_files(tmp_path / "b.npz", "train")
    image = Image.open(io.BytesIO(packed))
    assert image.size == (20, 10) and np.abs(np.asarray(image).astype(int) - 99).max() <= 2
