"""`python -m benchmarks.accelerator PART OUT SECONDS`: one part of what `benchmarks/accelerator.sh` runs.

A part adds a line of JSON to OUT/results.jsonl as soon as it knows something; `report` makes tables of what
is there.
"""

import argparse
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from benchmarks.accelerator.report import report
from benchmarks.accelerator.sessions import (
    DRY,
    LARGE,
    ROOT,
    SIZES,
    SMALL,
    TINY,
    memory_sessions,
    networks,
    sessions,
)
from benchmarks.contestants import SIGMA, Workload

SCRATCH = Path(os.environ.get("ACCELERATOR_SCRATCH", "."))  # what the parts share


def write(out: Path, **content) -> None:
    with open(out / "results.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(content) + "\n")


def tests(out: Path, seconds: float) -> None:
    """`pytest -m gpu`, several processes beside each other: most of it is compiling."""
    workers = [] if DRY else ["-n", "6"]
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-rA", "-q", "-W", "default"]
    command += [*workers, "tests/test_accelerator.py"]
    usual = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | usual, stdout=subprocess.PIPE, text=True
    )
    print(done.stdout)
    named = {k: re.findall(rf"^{k} (\S+)", done.stdout, re.MULTILINE) for k in ("PASSED", "FAILED")}
    failed = named["FAILED"] + re.findall(r"^ERROR (\S+)", done.stdout, re.MULTILINE)
    said = re.findall(r"^.* (?:from torch|from float64|after one step|mean \|Δ\|).*$", done.stdout, re.M)  # fmt: skip
    write(out, part="tests", passed=len(named["PASSED"]), failed=failed, said=said)
    if done.returncode:
        raise SystemExit(done.returncode)


def sampling(out: Path, seconds: float) -> None:
    """All prepare at once, and are timed one at a time: not before the tests give the GPU's lock back."""
    end, only = time.monotonic() + seconds, os.environ.get("ACCELERATOR_ONLY", "")
    every = [session for session in sessions() if re.search(only, session.name)]
    pool, folder = ThreadPoolExecutor(2 if DRY else 6), networks(SCRATCH / "networks")
    ready = [pool.submit(session.prepared, folder) for session in every]
    wait(ready, timeout=seconds if DRY else seconds / 2)
    with open(SCRATCH / "lock", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for session, future in zip(every, ready):
            left = end - time.monotonic()
            try:
                if left < 5 or not future.done():
                    session.stop()  # it would disturb the others
                    raise TimeoutError("not ready in time")
                for answer in session.ask(future.result(), min(left - 5, 60)):
                    write(out, part="sampling", **answer)
            except OSError as e:  # or its process has died
                write(out, part="sampling", contestant=session.name, error=str(e))
    pool.shutdown(wait=False, cancel_futures=True)


def precision(out: Path, seconds: float) -> None:
    """One sample alone, among many and in chunks, in each precision: by how much it differs."""
    import jax
    import numpy as np

    import jaxdiff as jd
    from benchmarks.contestants.of_jax import table_for_any
    from jaxdiff import data, metrics
    from jaxdiff.cli.terminal import cache_compiled_programs
    from jaxdiff.samplers.presets import preset

    cache_compiled_programs()
    many, count = (4, 2) if DRY else (32, 50)
    denoiser = jd.Denoiser(*jd.load(networks(SCRATCH / "networks") / SMALL))
    steps, photograph = denoiser.schedule.steps(count), data.example(SIZES[SMALL])
    blur = jd.operators.Blur(data.motion_kernel(9, seed=0), photograph.shape[:2])
    noise = np.random.default_rng(0).standard_normal(photograph.shape)
    y = np.asarray(blur(photograph) + SIGMA * noise, np.float32)
    table = table_for_any()

    def draw(name, level, n, batch_size):
        sampler = jd.DDPM(denoiser)
        if name != "ddpm":
            sampler = preset(name).sampler(denoiser, blur, y, SIGMA, covariance=table)
        options = {"precision": level, "batch_size": batch_size}
        began = time.perf_counter()
        images = np.asarray(jd.sample(sampler, steps, key=jax.random.key(0), n=n, **options))
        return images[0], (time.perf_counter() - began) / count

    names = ("dps", "spectral") if DRY else ("ddpm", "dps", "spectral")
    cases = [  # the first of a sampler is what the others are compared with
        (name, level, n, size)
        for name in names
        for level in ("highest", "high", "default")
        for n, size in ((many, many), (1, 1), (many, many // 4))
        if level == "highest" or n == size == many
    ]
    with ThreadPoolExecutor(2 if DRY else 9) as pool:  # compiled beside each other
        list(pool.map(lambda case: draw(*case), cases))
    exact = {}
    for name, level, n, size in cases:
        image, taken = draw(name, level, n, size)
        reference = exact.setdefault(name, image)
        quality = metrics.psnr(image, photograph) - metrics.psnr(reference, photograph)
        difference = np.abs(image - reference)
        case = {"sampler": name, "precision": level, "n": n, "batch_size": size, "seconds": taken}
        case |= {"mean": float(difference.mean()), "largest": float(difference.max())}
        write(out, part="precision", **case, psnr=float(quality))


def memory(out: Path, seconds: float) -> None:
    """Peaks of DPS on the large network, each in its process, and what the GPU has."""
    import jax

    folder = networks(SCRATCH / "networks")

    def measure(session):
        for answer in session.ask(session.prepared(folder), seconds):
            write(out, part="memory", **answer)

    with ThreadPoolExecutor(4) as pool:  # beside each other: memory is each one's own
        list(pool.map(measure, memory_sessions()))
    limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit")
    write(out, part="memory", limit_mb=limit and limit / 2**20)


def profile(out: Path, seconds: float) -> None:
    """What a step of DPS on the large network spends its time with."""
    model, n = networks(SCRATCH / "networks") / LARGE, "1" if DRY else "8"
    command = [sys.executable, "-m", "benchmarks.profile", "--model", model, "--n", n]
    command += ["--steps", "2", "--top", "12", "--out", SCRATCH / "profile"]
    subprocess.run(command, cwd=ROOT, check=True)
    write(out, part="profile", table=(SCRATCH / "profile" / "profile.md").read_text())


def train(out: Path, seconds: float) -> None:
    """As many steps as fit, by what one takes here; a run that is there goes on."""
    from benchmarks.accelerator.work import measure

    images, run = (Path(os.environ[f"ACCELERATOR_{name}"]) for name in ("IMAGES", "RUN"))
    batch, size = (4, 16) if DRY else (256, SIZES[SMALL])
    if (run / "settings.json").exists():
        steps = json.loads((run / "settings.json").read_text())["steps"]
    else:
        update, folder = Workload(SMALL, size, "train", batch), networks(SCRATCH / "networks")
        a_step = measure("jaxdiff", update, folder)["seconds"]
        planned = float(os.environ.get("ACCELERATOR_TRAIN_SECONDS", seconds))
        steps = 12 if DRY else max(100, int(0.8 * (planned - 40) / a_step))
        write(out, part="train", images_per_second=batch / a_step, batch=batch, steps=steps)
    command = [sys.executable, "-m", "jaxdiff.cli", "train", str(images), "--out", str(run)]
    command += ["--steps", str(steps), "--batch-size", str(batch), "--size", str(size)]
    command += ["--half-size", "0", "--save-every", str(max(4, steps // 4))]
    if DRY:
        config = run.with_name("config.json")
        config.write_text(json.dumps(TINY))
        command += ["--config", str(config)]
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background would have it ignored
    os.execv(sys.executable, [*command, *os.environ.get("ACCELERATOR_TRAIN", "").split()])


def main() -> None:
    parts = {f.__name__: f for f in (tests, sampling, precision, memory, profile, train)}
    parser = argparse.ArgumentParser(description="One part of benchmarks/accelerator.sh.")
    parser.add_argument("part", choices=[*parts, "report"])
    parser.add_argument("out", type=Path)
    parser.add_argument("seconds", type=float, nargs="?", default=0)
    arguments = parser.parse_args()
    if arguments.part == "report":
        print(report(arguments.out))
        return
    began = time.monotonic()
    parts[arguments.part](arguments.out, arguments.seconds)
    write(arguments.out, part="done", name=arguments.part, seconds=time.monotonic() - began)


if __name__ == "__main__":
    main()
