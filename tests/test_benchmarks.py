"""The benchmark measures what it says: small, but whole."""

import json
from pathlib import Path

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
from benchmarks.contestants import METHODS, Workload

ROOT = Path(__file__).parents[1]


def test_a_row(tiny):
    """Two contestants in turns, each in its process; jaxdiff started cold and again."""
    workload = Workload("tiny", 64, "ddpm", 1, 2)
    row = measure(workload, ["jaxdiff", "torch"], str(tiny), repeats=3)
    assert len(row["jaxdiff"]["first"]) == 2 and len(row["torch"]["first"]) == 1
    for name in ("jaxdiff", "torch"):
        assert len(row[name]["turns"]) == 3 and all(0 < t < 60 for t in row[name]["turns"])
        assert 50 < row[name]["peak_mb"] < 4000
    assert row["gemm"] > 1 and row["gflop"] > 0
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
