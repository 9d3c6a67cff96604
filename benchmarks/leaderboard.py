"""`python -m benchmarks.leaderboard FACES.npz`: every method, and the peers' own, by task.

Each validation face is degraded once a task and restored by each method that takes the task, with the steps of its
paper, nine draws each; azula's and deepinv's own implementations, on the same weights, one. Phase retrieval has no
mean: its draw is that of four whose amplitudes are nearest, turned by half where that is nearer, and hybrid
input–output stands beside it. Rows go to a CSV as they come; started again, a run goes on.
"""

import argparse
import time
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tqdm.auto import tqdm

import jaxdiff as jd
from benchmarks import phase, with_azula, with_deepinv
from benchmarks.posterior import azula_network, price
from benchmarks.scores import error_over_spread, scores
from jaxdiff import data, metrics
from jaxdiff.commands.cameras import operator as named_operator
from jaxdiff.commands.recipes import NOISES, made
from jaxdiff.plot import LABELS
from jaxdiff.samplers.presets import NAMES, preset
from jaxdiff.util.files import read_csv, replace_file, write_csv, write_text

FOLDER = Path("benchmarks/leaderboard-results")
TASKS = {
    "motion blur": ("blur:motion:17,1", "gaussian:0.05"),
    "Gaussian blur": ("blur:gaussian:11,2", "gaussian:0.05"),
    "×4": ("downsample:4", "gaussian:0.05"),
    "70 % missing": ("mask:0.3,0", "gaussian:0.05"),
    "a box": ("box:20,20,24,24", "gaussian:0.05"),
    "phase retrieval": ("phase:2", "gaussian:0.05"),
    "HDR": ("hdr:2", "gaussian:0.05"),
    "Poisson blur": ("blur:gaussian:11,2", "poisson:100"),
    # Of the other kinds of camera and noise that `jaxdiff restore` has a default for.
    "saturation": ("saturate:2", "gaussian:0.05"),
    "gamma": ("gamma:2.2", "gaussian:0.05"),
    "JPEG": ("jpeg:20", "gaussian:0.02"),
    "Laplace blur": ("blur:gaussian:11,2", "laplace:0.05"),
    "quantised blur": ("blur:gaussian:11,2", "quantised:8,0.05"),
}
OURS = tuple(name for name in NAMES if name != "blind")
HIO = "hybrid input–output"
# Their own, with their defaults.
PEERS = (
    *(f"azula {name}" for name in with_azula.METHODS),
    *(f"deepinv {name}" for name in with_deepinv.METHODS),
)
SCORES = ("psnr_draw", "psnr_mean", "ssim", "coverage", "error", "spread", "seconds")


class Problem(NamedTuple):
    """A degraded image of a task."""

    task: str
    operator: Any
    noise: Any
    y: np.ndarray
    truth: np.ndarray
    seed: int


def problem(task: str, image: np.ndarray, seed: int) -> Problem:
    """The same for every method."""
    recipe, noise = TASKS[task]
    operator, noise = named_operator(recipe, image.shape[:2]), made("noise", NOISES, noise)
    y = noise.draw(jax.random.key(seed), operator(image))
    return Problem(task, operator, noise, np.asarray(operator.project(y)), image, seed)


def draws_of(name: str, problem: Problem, n: int, prior) -> np.ndarray:
    """Draws [n, H, W, C] by a method, ours or a peer's.

    Raises:
        ValueError, TypeError: where it does not take the task.
    """
    if name == HIO:
        shape = problem.truth.shape
        found = [phase.hybrid_input_output(problem.y, shape, seed=k) for k in range(n)]
        return np.stack(found)
    if name in PEERS:
        peer, method = name.split()
        if not isinstance(problem.noise, jd.noise.Gaussian):
            raise ValueError(f"{name}: takes Gaussian noise alone")
        if method != "dps" and not isinstance(problem.operator, jd.operators.Linear):
            raise ValueError(f"{name}: takes linear operators alone")
        sigma, steps = float(problem.noise.sigma), preset(method).steps
        given = method, problem.operator, problem.y, sigma, steps
        if peer == "deepinv":
            draw = partial(with_deepinv.restored, azula_network(), *given)
        else:
            draw = partial(with_azula.restored, azula_network(), *given, 1)
        return np.concatenate([draw(seed=k) for k in range(n)])
    denoiser, covariance = prior
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a method that does not suit: the table says it
        restored = jd.restore(
            problem.y,
            problem.operator,
            problem.noise,
            prior=denoiser,
            covariance=covariance,
            sampler=name,
            n=n,
            key=jax.random.key(problem.seed),
        )
    return np.asarray(restored.draws)


def score(problem: Problem, draws: np.ndarray) -> dict[str, float]:
    """One row's numbers but for its time."""
    truth = problem.truth
    if problem.task == "phase retrieval":
        amplitudes = np.asarray(jax.vmap(problem.operator)(draws))
        best = draws[((amplitudes - problem.y) ** 2).sum((1, 2, 3)).argmin()]
        upright = max((best, best[::-1, ::-1]), key=lambda x: metrics.psnr(x, truth))
        return {"psnr_draw": metrics.psnr(upright, truth), "ssim": metrics.ssim(upright, truth)}
    return scores(draws, truth) | {"ssim": metrics.ssim(draws[0], truth)}


def run(path: Path, images: np.ndarray, tasks, methods, draws: int) -> list[dict]:
    """The rows that are there, and those that are not, measured."""
    rows = read_csv(path, text=("task", "method"), whole=("image",)) if path.exists() else []
    done = {(r["task"], r["method"], r["image"]) for r in rows}
    prior = jd.prior("faces64"), jd.SpectralCovariance.load("faces64")
    for task in tasks:
        for name in methods:
            if name == HIO and task != "phase retrieval":
                continue
            bar = tqdm(range(len(images)), f"{task}, {name}", unit="image")
            for i in bar:
                if (task, name, i) in done:
                    continue
                one = problem(task, images[i], i)
                n = 4 if task == "phase retrieval" else 1 if name in PEERS else draws
                started = time.perf_counter()
                try:
                    found = draws_of(name, one, n, prior)
                except (ValueError, TypeError, ImportError) as e:  # not for it, or not installed
                    bar.write(f"{task}, {name}: {e}")
                    break
                row = score(one, found) | {"seconds": (time.perf_counter() - started) / n}
                place = {"task": task, "method": name, "image": i}
                rows.append(place | {k: row.get(k, np.nan) for k in SCORES})
                write_csv(path, rows)
    return rows


def cost(name: str) -> tuple[int, int]:
    """(evaluations, gradients) of one draw."""
    name = name.split()[-1]
    return price(name, preset(name).steps) if name in NAMES else (0, 0)


def cells(rows: list[dict]) -> Iterator[dict[str, Any]]:
    """Of each task and method: the means, the ratio of sums, the median time (of few images, of compiling too)."""
    for task in TASKS:
        for name in (*OURS, *PEERS, HIO):
            some = [r for r in rows if (r["task"], r["method"]) == (task, name)]
            if not some:
                continue
            cell: dict[str, Any] = {"task": task, "method": name, "images": len(some)}
            for k in ("psnr_draw", "psnr_mean", "ssim", "coverage"):
                cell[k] = float(np.mean([r[k] for r in some]))
            cell["error_over_spread"] = error_over_spread(some)
            cell["seconds"] = float(np.median([r["seconds"] for r in some]))
            cell["evaluations"], cell["gradients"] = cost(name)
            yield cell


def table(rows: list[dict]) -> str:
    """As markdown."""
    lines = [
        "| task | method | images | a draw, dB | mean of the draws, dB | SSIM | error/spread | coverage "
        "| evaluations + gradients | s a draw |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]

    def shown(number: float, digits: int = 2) -> str:
        return f"{number:.{digits}f}" if np.isfinite(number) else ""

    for c in cells(rows):
        lines.append(
            f"| {c['task']} | {LABELS.get(c['method'], c['method'])} | {c['images']} "
            f"| {shown(c['psnr_draw'])} | {shown(c['psnr_mean'])} | {shown(c['ssim'], 3)} "
            f"| {shown(c['error_over_spread'])} | {shown(c['coverage'], 3)} "
            f"| {c['evaluations']} + {c['gradients']} | {shown(c['seconds'])} |"
        )
    return "\n".join(lines) + "\n"


def shared(rows: list[dict]) -> list[dict]:
    """Of each task that more than one method has, the faces that all of them have."""
    faces: dict[str, dict[str, set[int]]] = {}
    for r in rows:
        faces.setdefault(r["task"], {}).setdefault(r["method"], set()).add(r["image"])
    common = {t: set.intersection(*own.values()) for t, own in faces.items() if len(own) > 1}
    return [r for r in rows if r["image"] in common.get(r["task"], ())]


def plot(rows: list[dict]) -> Figure:
    """Quality and calibration against what they cost, averaged over the tasks that a method has, on the same faces."""
    found = list(cells(shared([r for r in rows if r["task"] != "phase retrieval"])))
    best = {c["task"]: max(d["psnr_draw"] for d in found if d["task"] == c["task"]) for c in found}
    calibrated = any(
        np.isfinite(c["error_over_spread"]) for c in found
    )  # single draws have no spread
    figure = Figure((11 if calibrated else 5.5, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, *right = figure.subplots(1, 1 + calibrated, squeeze=False)[0]
    for name in dict.fromkeys(c["method"] for c in found):
        own = [c for c in found if c["method"] == name]
        below = np.mean([c["psnr_draw"] - best[c["task"]] for c in own])
        ratio = np.mean([c["error_over_spread"] for c in own])
        x, label = sum(cost(name)), LABELS.get(name, name)
        for axis, y in zip((left, *right), (below, ratio), strict=False):
            axis.plot(x, y, "o" if name in OURS else "x")
            axis.annotate(label, (x, y), xytext=(4, 3), textcoords="offset points", fontsize=7)
    left.set_ylabel("a draw, dB below the task's best")
    for axis in right:
        axis.set_ylabel("error of the mean over the draws' spread")
        axis.axhline(1, color="grey", linestyle="--", linewidth=0.8)
    for axis in (left, *right):
        axis.set_xscale("log")
        axis.margins(x=0.25)  # room for the names
        axis.set_xlabel("evaluations and gradients a draw")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.leaderboard", description=__doc__)
    parser.add_argument("faces", type=Path, help="an .npz of packed images, of which those of val")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS, metavar="TASK")
    every = (*OURS, *PEERS, HIO)
    parser.add_argument("--methods", nargs="+", default=every, choices=every, metavar="METHOD")
    parser.add_argument("--most", type=int, help="evaluations and gradients of a method, at most")
    parser.add_argument("--images", type=int, default=40, help="of each cell (default 40)")
    parser.add_argument("--draws", type=int, default=9, help="of each image (default 9)")
    parser.add_argument("--out", type=Path, default=FOLDER)
    args = parser.parse_args()
    images = data.load_images(args.faces, (64, 64), n=args.images, split="val")
    args.out.mkdir(exist_ok=True)
    methods = [m for m in args.methods if args.most is None or sum(cost(m)) <= args.most]
    rows = run(args.out / "rows.csv", images, args.tasks, methods, args.draws)
    text, save = table(rows), plot(rows).savefig
    write_text(args.out / "table.md", text)
    replace_file(args.out / "leaderboard.png", lambda t: save(t, dpi=110, format="png"))
    print(text)


if __name__ == "__main__":
    main()
