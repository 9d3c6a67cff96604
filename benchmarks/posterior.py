"""`python -m benchmarks.posterior`: which sampler's posterior is true, and at what price.

(a) Gaussian priors, where the posterior and each linear sampler's law are known exactly.
(b) Photographs: PSNR of a draw and of the posterior mean, calibration, and time.

Rows go to CSV as they come; stopped and started again, a run goes on. The photographs are the
bundled ones, which neither the prior nor its table was measured on; with `--validation`, more such
photographs and the spectral samplers alone.
"""

import argparse
import csv
import dataclasses
import functools
import importlib.util
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tqdm.auto import tqdm

import jaxdiff as jd
from benchmarks import affine, drawn, with_azula
from jaxdiff import data, metrics
from jaxdiff.commands.cameras import operator as named_operator
from jaxdiff.plot import LABELS
from jaxdiff.samplers import jacobian
from jaxdiff.samplers.presets import COURSE, preset
from jaxdiff.util.files import replace_file, write_csv

# Each at the steps that its paper gives it.
METHODS = (
    "ddrm",
    "ddnm",
    "diffpir",
    "fastdips",
    "reddiff",
    "tmpd",
    "mmps",
    "sitcom",
    "pnpdm",
    "tds",
    "daps",
)
LINEAR = ("spectral", "spectral-mean", "pigdm-paper", "pigdm", *affine.REPLACING)
COUNTS = (5, 10, 20, 50, 100, 1000)
# Of "spectral-jacobian", whose gradients count: steps by evaluations.
WITH_GRADIENTS = {5: 4, 10: 9, 20: 17, 50: 42, 100: 83}
# (evaluations of the network, gradients through it) of a step, where they are not one and none.
COSTS = {
    "pigdm": (1, 1), "pigdm-paper": (1, 1), "dps": (1, 1), "dps-adaptive": (1, 1),
    "tmpd": (1, 2), "mmps": (1, 2), "sitcom": (30, 30), "pnpdm": (20, 0), "tds": (16, 16),
    "daps": (5, 0), "repaint": (10, 0),
}  # fmt: skip
CAMERAS = ("blur:motion:17,1", "downsample:4", "mask:0.3,0", "crop:8@blur:motion:17,1")
SIGMAS = (5, 10, 20)  # in 255
KEYS = ("camera", "sigma", "sampler", "evaluations", "images", "draws")
COLUMNS: list[str] = [
    *KEYS,
    *("psnr_wiener", "psnr_wiener_constant", "psnr_draw", "psnr_mean"),
    *("error_over_spread", "band1", "band2", "band3", "band4", "coverage"),
    *("cg_iterations", "seconds"),
]


@dataclasses.dataclass(frozen=True)
class Cell:
    """One row of (b): a camera, a noise level in 255, a sampler and its steps."""

    camera: str
    sigma: int
    sampler: str
    evaluations: int


# Shown where they are stored. A thousand evaluations of all three take over an hour: with --long.
LONG = [Cell(CAMERAS[0], 10, name, 1000) for name in ("spectral", "dps", "pigdm")]
AZULA = [Cell(CAMERAS[0], 10, f"azula-mmps-{iterations}", 20) for iterations in (1, 3)]


def validation(cameras: tuple[str, ...]) -> list[Cell]:
    """The spectral samplers at ten evaluations, at every noise level with the first camera."""
    places = [(cameras[0], sigma) for sigma in SIGMAS] + [(camera, 10) for camera in cameras[1:]]
    samplers = (("spectral", 10), ("spectral-jacobian", WITH_GRADIENTS[10]))
    return [Cell(*place, *sampler) for sampler in samplers for place in places]


def grid(quick: bool) -> list[Cell]:
    """Every sampler at the first camera, RePaint at the mask; elsewhere spectral, and ΠGDM at σ = 10/255."""
    if quick:
        return [
            Cell(CAMERAS[0], 10, name, t) for name, t in (("spectral", 10), ("pigdm-paper", 20))
        ]
    main = [
        (name, WITH_GRADIENTS[t] if name == "spectral-jacobian" else t)
        for name in (*COURSE, "spectral-mean")
        for t in COUNTS[:-1]
    ]
    main += [(name, preset(name).steps) for name in METHODS]
    cells = [Cell(CAMERAS[0], 10, name, t) for name, t in main]
    cells.append(Cell(CAMERAS[2], 10, "repaint", preset("repaint").steps))
    for camera in CAMERAS:
        for sigma in SIGMAS:
            cells.append(Cell(camera, sigma, "spectral", 10))
            if sigma == 10:
                cells.append(Cell(camera, sigma, "pigdm-paper", 20))
    return list(dict.fromkeys(cells))


def price(sampler: str, steps: int) -> tuple[int, int]:
    """(evaluations of the network, gradients through it) of one draw; SITCOM may take fewer."""
    if sampler == "spectral-jacobian":
        levels = jd.Schedule.from_config().steps(steps).alphas_cumprod
        return steps, int(jacobian.used(levels).sum())
    each = COSTS.get(sampler, (1, 0))
    return steps * each[0], steps * each[1]


def evaluations(row: dict) -> int:
    """Of the network, for one draw.

    The gradients of "spectral-jacobian" and of the solvers of MMPS and TMPD count as evaluations, the one
    that ΠGDM, DPS and others need anyway for an evaluation does not.
    """
    sampler, steps = row["sampler"], int(row["evaluations"])
    if sampler.startswith("azula"):
        return steps * (1 + int(sampler[-1]))
    found = price(sampler, steps)
    return sum(found) if sampler == "spectral-jacobian" else max(found)


def gaussian_table() -> str:
    """(a), as markdown."""
    problem = affine.example()
    lines = ["| sampler | evaluations | error of the mean | ratio of spreads | 2-Wasserstein |"]
    lines.append("|---|---:|---:|---:|---:|")
    for name in LINEAR:
        for count in COUNTS:
            found = affine.compare(name, problem, problem.prior.schedule.steps(count, "trailing"))
            mean, spread, distance = found.values()
            lines.append(f"| {name} | {count} | {mean:.2g} | {spread:.3f} | {distance:.2g} |")
    return "\n".join(lines) + "\n"


def build(cell: Cell, images: np.ndarray, denoiser, covariance):
    """(operator, σ, measurements of the images, sampler of ours or None)."""
    operator, sigma = named_operator(cell.camera, images.shape[1:3]), cell.sigma / 255
    clean = np.asarray(operator(images))
    y = clean + sigma * np.random.default_rng(0).standard_normal(clean.shape)
    y = np.asarray(operator.project(y), np.float32)
    if cell.sampler.startswith("azula"):
        sampler = None  # its own
    elif cell.sampler == "spectral-mean":
        sampler = jd.SpectralPosterior(denoiser, operator, y, sigma, covariance, draw=False)
    else:
        sampler = preset(cell.sampler).sampler(denoiser, operator, y, sigma, covariance=covariance)
    return operator, sigma, y, sampler


def drawing(cell: Cell, operator, sigma, y, sampler, denoiser) -> Callable:
    """(draws, seed) → posterior samples [N, draws, H, W, C] and the iterations of its solver."""
    if sampler is None:
        network, iterations = azula_network(), int(cell.sampler[-1])

        def by_azula(draws, seed):
            given = sigma, cell.evaluations, draws, seed
            found = [
                with_azula.restored(network, "mmps", operator, one, *given, iterations=iterations)
                for one in y
            ]
            return np.stack(found), 0

        return by_azula
    steps = sampler.steps(cell.evaluations)

    def ours(draws, seed):
        key = jax.random.key(seed)
        samples, iterations = jd.sample(sampler, steps, key=key, n=draws, keep=_cg_iterations)
        return np.asarray(samples), np.mean(np.asarray(iterations))

    return ours


@functools.cache
def azula_network():
    """The bundled prior in torch."""
    with tempfile.TemporaryDirectory() as folder:
        jd.save(folder, *jd.load("faces64"))
        return with_azula.denoiser(folder)


def seconds_a_draw(cell: Cell, images: np.ndarray, denoiser, covariance) -> float:
    """Of one draw of the first image: the median of three, compiled before."""
    draw = drawing(cell, *build(cell, images[:1], denoiser, covariance), denoiser)
    times = []
    for seed in range(4):
        start = time.perf_counter()
        draw(1, seed)
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))


def wiener_constant(y: np.ndarray, operator, images: np.ndarray) -> float:
    """PSNR of K*/(|K|² + c)·y for a blur K, at the c that is best for these very images."""
    transfer = np.fft.fft2(np.fft.ifftshift(operator.kernel))[..., None]
    spectra = np.fft.fft2(y, axes=(1, 2))

    def restored(c):
        gain = np.conj(transfer) / (np.abs(transfer) ** 2 + c)
        return np.clip(np.fft.ifft2(gain * spectra, axes=(1, 2)).real, 0, 1)

    ratios = 10 ** np.arange(-3.5, 0.1, 0.125)
    scores = [np.mean([metrics.psnr(a, b) for a, b in zip(restored(c), images)]) for c in ratios]
    return float(max(scores))


def measure(cell: Cell, images: np.ndarray, draws: int, denoiser, covariance) -> dict:
    """One row: `draws` posterior samples of every image, scored."""
    operator, sigma, y, sampler = build(cell, images, denoiser, covariance)
    samples, iterations = drawing(cell, operator, sigma, y, sampler, denoiser)(draws, 0)
    wiener = [metrics.wiener(one, operator, sigma, images.shape[1:]) for one in y]
    found = metrics.calibration(samples, images)
    bands = dict(zip(("band1", "band2", "band3", "band4"), found["error_over_spread_by_band"]))
    return (
        dataclasses.asdict(cell)
        | bands
        | {
            "psnr_wiener": np.mean([metrics.psnr(a, b) for a, b in zip(wiener, images)]),
            "psnr_wiener_constant": wiener_constant(y, operator, images)
            if isinstance(operator, jd.operators.Blur)
            else "",
            "psnr_draw": np.mean([metrics.psnr(s[0], x) for s, x in zip(samples, images)]),
            "psnr_mean": np.mean([metrics.psnr(s.mean(0), x) for s, x in zip(samples, images)]),
            "error_over_spread": found["error_over_spread"],
            "coverage": found["coverage"],
            "images": len(images),
            "draws": draws,
            "cg_iterations": float(iterations),
            "seconds": seconds_a_draw(cell, images, denoiser, covariance),
        }
    )


def _cg_iterations(x, info):
    """For `keep=`, which is static: a function of its own at every call would recompile."""
    return info.get("cg_iterations", 0)


def stored(path: Path, keys: tuple[str, ...]) -> dict[tuple, dict]:
    """The rows of a CSV by what identifies them; none where there is no file."""
    if not path.exists():
        return {}
    with open(path, encoding="utf-8", newline="") as file:
        return {tuple(row[k] for k in keys): row for row in csv.DictReader(file)}


def run(path: Path, images: np.ndarray, draws: int, cells: list[Cell], if_stored=()) -> list[dict]:
    """The rows of (b), read where they are there and measured where not.

    Of the cells `if_stored` only those that are there.
    """
    rows = stored(path, KEYS)

    def keys(cells) -> dict[tuple, Cell]:
        rest = str(len(images)), str(draws)
        return {(*map(str, dataclasses.astuple(cell)), *rest): cell for cell in cells}

    wanted = keys(cells) | {k: cell for k, cell in keys(if_stored).items() if k in rows}
    denoiser = jd.Denoiser(*jd.load("faces64"))
    covariance = jd.SpectralCovariance.load("faces64")
    for key in tqdm([key for key in wanted if key not in rows], unit="cell"):
        row = measure(wanted[key], images, draws, denoiser, covariance)
        rows[key] = {k: round(row[k], 4) if isinstance(row[k], float) else row[k] for k in COLUMNS}
        write_csv(path, list(rows.values()))
    rows = stored(path, KEYS)  # text, like the rows that were there
    return [rows[key] for key in wanted]


def faces_table(rows: list[dict], draws: int) -> str:
    """(b), as markdown."""
    nominal = (draws - 1) / (draws + 1)
    head = "| camera | σ·255 | sampler | evaluations | Wiener, dB | with the best constant, dB "
    head += f"| one draw, dB | mean of {draws}, dB | error/spread | by band | coverage (nominal {nominal:.2f}) | CG a step | s a draw |"
    lines = [head, "|---|---:|---|---:|---:|---:|---:|---:|---:|---|---:|---:|---:|"]
    for r in rows:
        constant = r["psnr_wiener_constant"] and f"{float(r['psnr_wiener_constant']):.2f}"
        bands = " ".join(f"{float(r[f'band{i}']):.2f}" for i in (1, 2, 3, 4))
        lines.append(
            f"| {r['camera']} | {r['sigma']} | {r['sampler']} | {evaluations(r)} "
            f"| {float(r['psnr_wiener']):.2f} | {constant} | {float(r['psnr_draw']):.2f} "
            f"| {float(r['psnr_mean']):.2f} | {float(r['error_over_spread']):.2f} | {bands} "
            f"| {float(r['coverage']):.3f} | {float(r['cg_iterations']):.0f} "
            f"| {float(r['seconds']):.2f} |"
        )
    return "\n".join(lines) + "\n"


def plot(rows: list[dict], draws: int) -> Figure:
    """Posterior mean's PSNR and calibration against evaluations, for the first row's camera."""
    figure = Figure((11, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    rows = [r for r in rows if all(r[k] == rows[0][k] for k in ("camera", "sigma"))]
    for name in dict.fromkeys(r["sampler"] for r in rows):
        own = sorted((r for r in rows if r["sampler"] == name), key=lambda r: int(r["evaluations"]))
        x = [evaluations(r) for r in own]
        left.plot(x, [float(r["psnr_mean"]) for r in own], "o-", label=LABELS.get(name, name))
        right.plot(x, [float(r["error_over_spread"]) for r in own], "o-")
    best = max(float(r["psnr_mean"]) for r in rows)
    left.set_ylim(best - 8, best + 0.5)  # of the others it is enough to know that they are below
    left.set_ylabel(f"PSNR of the mean of {draws} draws, dB")
    right.set_ylabel("error of the mean over the draws' spread")
    right.axhline(1, color="grey", linestyle="--", linewidth=0.8)
    left.set_title("posterior mean: higher is better")
    right.set_title("calibration: 1 is right, above is too sure")
    for axis in (left, right):
        axis.set_xscale("log")
        axis.set_xticks([5, 10, 20, 50, 100, 1000], ["5", "10", "20", "50", "100", "1000"])
        axis.set_xlabel("network evaluations a draw")
    figure.legend(loc="outside right center", fontsize=8)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.posterior", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two samplers, two images: a minute")
    parser.add_argument(
        "--long", action="store_true", help="1000 evaluations as well: over an hour more"
    )
    parser.add_argument(
        "--images", type=int, default=6, help="photographs (default 6; of the bundled at most 8)"
    )
    parser.add_argument(
        "--validation", type=Path, help="a folder or .npz, of which the first --images are restored"
    )
    parser.add_argument(
        "--camera",
        action="append",
        help="with --validation: in place of its cameras; the first at three noise levels, others at one",
    )
    parser.add_argument(
        "--draws", type=int, default=9, help="posterior samples of each (default 9)"
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/posterior-results"))
    args = parser.parse_args()
    count = 2 if args.quick else args.images
    args.out.mkdir(parents=True, exist_ok=True)
    if args.validation:
        images = data.load_images(args.validation, (64, 64), n=count, split="val")
        cameras = args.camera or (CAMERAS[0], "blur:motion:17,0", *CAMERAS[1:3])
        rows = run(args.out / "validation.csv", images, args.draws, validation(tuple(cameras)))
        text = f"# {count} photographs of {args.validation.name}, {args.draws} draws of each\n\n"
        text += faces_table(rows, args.draws)
        replace_file(
            args.out / "validation.md", lambda p: Path(p).write_text(text, encoding="utf-8")
        )
        print(text)
        return
    images = np.stack(list(data.faces().values()))[:count]
    table = gaussian_table()
    cells, shown = grid(args.quick), []
    if not args.quick:
        shown = AZULA + LONG
        cells += AZULA * bool(importlib.util.find_spec("azula")) + LONG * args.long
    rows = run(args.out / "faces.csv", images, args.draws, cells, shown)
    text = f"# Posterior samplers\n\n## A Gaussian prior, exactly\n\n{table}\n"
    if not args.quick:
        text += "## The same at 8², by draws\n\n"
        text += drawn.table(drawn.run(args.out / drawn.FILE.name, 4000)) + "\n"
    text += f"## Faces: {len(images)} photographs, {args.draws} draws of each\n\n"
    text += faces_table(rows, args.draws)
    replace_file(args.out / "results.md", lambda p: Path(p).write_text(text, encoding="utf-8"))
    figure = plot(rows, args.draws)
    replace_file(args.out / "posterior.png", lambda p: figure.savefig(p, dpi=110, format="png"))
    print(text)


if __name__ == "__main__":
    main()
