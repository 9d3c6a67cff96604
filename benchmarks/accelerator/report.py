"""The tables of a run on a GPU, of as much of results.jsonl as there is."""

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.accelerator.sessions import LARGE, VARIANTS

COURSE = 8.0  # DDPM iterations a second at 256² that the course's notebook reports of its GPU


def report(out: Path) -> str:
    """All sections, as markdown."""
    path = out / "results.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    found = [json.loads(line) for line in lines]
    sections = (tests, sampling, precision, memory, profile, train, done)
    texts = [section([r for r in found if r["part"] == section.__name__]) for section in sections]
    return "\n\n".join(text for text in texts if text) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def tests(found: list[dict]) -> str:
    if not found:
        return ""
    last = found[-1]
    lines = [f"**Tests on the GPU**: {last['passed']} passed, {len(last['failed'])} failed.", ""]
    return "\n".join([*lines, *(f"- FAILED {name}" for name in last["failed"]), "", *last["said"]])


def sampling(found: list[dict]) -> str:
    """Seconds a step of jaxdiff's, and how many times as long the others take."""
    timed = {(r["workload"], r["contestant"]): r for r in found if "seconds" in r}
    failed = {(r["workload"], r["contestant"]) for r in found if "error" in r and "workload" in r}
<<<<<<< HEAD
    late = sorted({r["contestant"] for r in found if "workload" not in r})
=======
    silent = {r["contestant"]: r["error"] for r in found if "workload" not in r}
>>>>>>> accel
    names = dict.fromkeys(r["contestant"] for r in found)
    others = [n for n in names if n.startswith("torch")]
    rows, variants = [], []
    for workload in dict.fromkeys(r["workload"] for r in found if "seconds" in r):
        ours = timed.get((workload, "jaxdiff"))

        def cell(name, workload=workload, ours=ours):
            if (workload, name) in failed:
                return "does not fit"
            theirs = timed.get((workload, name))
            if not theirs:
                return "–"
            return f"{theirs['seconds'] / ours['seconds']:.2f}" if ours else theirs["seconds"]

        if ours or any((workload, n) in timed for n in others):
            mine = f"{1e3 * ours['seconds']:.2f}" if ours else cell("jaxdiff")
            first = f"{ours['first']:.1f}" if ours else "–"
            rows.append([workload, mine, first, *(str(cell(n)) for n in others)])
        for name in VARIANTS:
            if ours and (workload, f"jaxdiff, {name}") in timed:
                variants.append([workload, name, str(cell(f"jaxdiff, {name}"))])
    if not found:
        return ""
    speeds = [f"{r['dtype']} {r['gflops'] / 1e3:.0f} TFLOP/s" for r in found if "gflops" in r]
    texts = [
        "**Sampling and training**: milliseconds a step of jaxdiff's, and seconds to its first result with its "
        "programs on disk; then how many times as long the others take (above 1 jaxdiff is faster). float32 is "
        f"TF32. A product of matrices: {', '.join(speeds) or '–'}.",
        table(["workload", "jaxdiff, ms", "first, s", *(f"{n}, ×" for n in others)], rows),
    ]
    if variants:
        texts += [
            "jaxdiff otherwise, × its time as it is (below 1: choose it):",
            table(["workload", "choice", "×"], variants),
        ]
<<<<<<< HEAD
    if late:
        texts.append(f"Not ready in time: {', '.join(late)}.")
=======
    texts += [f"{name}: {error}." for name, error in silent.items()]
>>>>>>> accel
    alone = [
        r for (w, n), r in timed.items() if n == "jaxdiff" and w.startswith(f"{LARGE} ") and r["batch"] == 1
    ]  # fmt: skip
    course = [f"{r['method']} {r['dtype']} {1 / r['seconds']:.1f}" for r in alone]
    if course:
        texts.append(
            f"Steps a second at batch 1: {', '.join(course)}; the course's DDPM: {COURSE}."
        )
    return "\n\n".join(texts)


def precision(found: list[dict]) -> str:
    if not found:
        return ""
    rows = [
        [
            f"{r['sampler']}, {r['precision']}, n = {r['n']}, {r['batch_size']} at once",
            f"{1e3 * r['seconds']:.2f}",
            f"{r['mean']:.1e}",
            f"{r['largest']:.1e}",
            f"{r['psnr']:+.3f}",
        ]
        for r in found
    ]
    head = ["faces64", "a step, ms", "mean difference", "largest", "PSNR, dB"]
    return "**Precision and invariance**: of the first sample, from highest.\n\n" + table(
        head, rows
    )


def memory(found: list[dict]) -> str:
    """The peaks, and by the line through two of them the largest batch."""
    peaks: dict[str, dict[int, float]] = {}
    limit = next((r["limit_mb"] for r in reversed(found) if r.get("limit_mb")), None)
    for r in found:
        if "peak_mb" in r:
            name = r["contestant"] + (", remat" if r["remat"] else "")
            peaks.setdefault(name, {})[r["batch"]] = r["peak_mb"]
    rows = []
    for name, by_batch in peaks.items():
        (few, small), (many, large) = min(by_batch.items()), max(by_batch.items())
        largest = "–"
        if limit and large > small:
            largest = str(int(few + (limit - small) / (large - small) * (many - few)))
        shown = ", ".join(f"{mb:.0f} MB of {batch}" for batch, mb in sorted(by_batch.items()))
        rows.append([name, shown, largest])
    if not rows:
        return ""
    head = ["contestant", "peak", "largest batch, by the line through them"]
    text = f"**Memory** of DPS on {LARGE}" + (f"; the GPU has {limit:.0f} MB" if limit else "")
    return f"{text}.\n\n{table(head, rows)}"


def profile(found: list[dict]) -> str:
    return f"**Profile**: {found[-1]['table'].strip()}" if found else ""


def train(found: list[dict]) -> str:
    return "\n".join(
        f"**Training**: {r['images_per_second']:.0f} images a second in batches of {r['batch']}, so "
        f"{r['steps']} steps."
        for r in found
    )


def done(found: list[dict]) -> str:
    return (
        "Parts: " + ", ".join(f"{r['name']} {r['seconds']:.0f} s" for r in found) if found else ""
    )
