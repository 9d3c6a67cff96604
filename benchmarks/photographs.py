"""`python -m benchmarks.photographs PHOTOS.npz`: a prior's restorations of people's photographs.

The middle of each validation photograph through three cameras, restored by each prior, by our Wiener
filter, and where the camera is a blur by BM3D (`--bm3d PYTHON`: see with_bm3d.py).
A prior is what `jd.prior` takes; `NAME:64` runs it in windows of 64 pixels, NAME alone on the
photograph as it is. Rows go to a CSV as they come; started again, a run goes on.
"""

import argparse
import itertools
from pathlib import Path

import jax
import numpy as np
from tqdm.auto import tqdm

import jaxdiff as jd
from benchmarks.scores import error_over_spread, scores
from benchmarks.with_bm3d import deblurred
from jaxdiff import data, metrics
from jaxdiff.commands.cameras import operator as named_operator
from jaxdiff.operators import Blur
from jaxdiff.priors.tiled import Tiled
from jaxdiff.util.files import read_csv, write_csv

FILE = Path("benchmarks/posterior-results/photographs.csv")
CAMERAS = ("blur:motion:17,1", "blur:gaussian:11,1.6", "downsample:2")
SIGMAS = (5, 10)  # in 255
UNSURE = ("coverage", "error", "spread")  # of draws alone


def measurement(image: np.ndarray, camera: str, sigma: float, seed: int):
    """(operator, y): the same for every contestant."""
    operator = named_operator(camera, image.shape[:2])
    clean = np.asarray(operator(image))
    noise = np.random.default_rng(seed).standard_normal(clean.shape)
    return operator, np.asarray(operator.project(clean + sigma * noise), np.float32)


def prior(name: str, shape: tuple[int, int]):
    """(denoiser, table) of NAME, or of NAME:WINDOW in windows of so many pixels."""
    name, _, window = name.partition(":")
    denoiser, table = jd.prior(name), jd.SpectralCovariance.find(name)
    if window:
        denoiser = Tiled(denoiser, shape, int(window), int(window) // 4)
    return denoiser, table


def classical(name: str, operator, y: np.ndarray, sigma: float, shape, bm3d: str | None):
    """The image by a method without a network."""
    if name == "wiener":
        return jd.wiener(y, operator, sigma, shape)
    assert bm3d is not None
    return deblurred(bm3d, y, sigma, operator.kernel)


def measure(
    name, known, image: np.ndarray, camera, sigma: float, n: int, i: int, bm3d=None
) -> dict:
    """One row: the scores, and what a ratio over several images is made of."""
    operator, y = measurement(image, camera, sigma, i)
    if known is None:
        found = metrics.psnr(classical(name, operator, y, sigma, image.shape, bm3d), image)
        return {"psnr_mean": found, "psnr_draw": found} | dict.fromkeys(UNSURE, np.nan)
    denoiser, table = known
    restored = jd.restore(
        y, operator, sigma, prior=denoiser, covariance=table, n=n, key=jax.random.key(i)
    )
    return scores(np.asarray(restored.draws), image)


def thirds(images: np.ndarray) -> np.ndarray:
    """0, 1 or 2 for each image: flat, between, textured, by the power of its finest detail."""
    detail = [np.mean(np.diff(x, axis=0) ** 2) + np.mean(np.diff(x, axis=1) ** 2) for x in images]
    return np.argsort(np.argsort(detail)) * 3 // len(images)


def table(rows: list[dict], images: np.ndarray) -> str:
    """Means over the images, as markdown."""
    third = thirds(images)
    lines = [
        "| camera | σ·255 | by | images | one draw, dB | mean of the draws, dB | error/spread "
        "| flat, between, textured | coverage |",
        "|---|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    cells = itertools.groupby(rows, lambda row: (row["camera"], row["sigma"], row["by"]))
    for (camera, sigma, name), group in cells:
        some = list(group)
        line = f"| {camera} | {sigma:g} | {name} | {len(some)} "
        line += "".join(
            f"| {np.mean([row[k] for row in some]):.2f} " for k in ("psnr_draw", "psnr_mean")
        )
        if np.isfinite(some[0]["error"]):
            each = [[row for row in some if third[row["image"]] == k] for k in range(3)]
            of_each = " ".join(f"{error_over_spread(one):.2f}" if one else "–" for one in each)
            coverage = np.mean([row["coverage"] for row in some])
            line += f"| {error_over_spread(some):.3f} | {of_each} | {coverage:.3f} |"
        else:
            line += "| | | |"
        lines.append(line)
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.photographs", description=__doc__)
    parser.add_argument("photographs", type=Path, help="an .npz of packed images, of which val")
    parser.add_argument("--priors", default="faces64", help="with commas (default faces64)")
    parser.add_argument("--size", type=int, default=192, help="of the squares (default 192)")
    parser.add_argument("--images", type=int, default=32, help="how many (default 32)")
    parser.add_argument("--draws", type=int, default=9, help="of each (default 9)")
    parser.add_argument("--cameras", nargs="+", default=CAMERAS)
    parser.add_argument("--sigmas", type=float, nargs="+", default=SIGMAS, help="in 1/255")
    parser.add_argument("--bm3d", metavar="PYTHON", help="a Python that has bm3d 3.0.9")
    parser.add_argument("--out", type=Path, default=FILE)
    args = parser.parse_args()
    shape = (args.size, args.size)
    images = data.load_images(args.photographs, shape, "crop", n=args.images, split="val")
    filters = ["wiener", "bm3d"] if args.bm3d else ["wiener"]
    rows = []
    if args.out.exists():
        rows = read_csv(args.out, text=("camera", "by"), whole=("image",))
    done = {(row["camera"], row["sigma"], row["by"], row["image"]) for row in rows}
    places = list(itertools.product(args.cameras, args.sigmas))
    for name in [*filters, *args.priors.split(",")]:
        known = None if name in filters else prior(name, shape)
        wanted = [
            (camera, sigma, name, i)
            for camera, sigma in places
            for i in range(len(images))
            if name != "bm3d" or isinstance(named_operator(camera, shape), Blur)
        ]
        for camera, sigma, by, i in tqdm([w for w in wanted if w not in done], name, unit="image"):
            found = measure(by, known, images[i], camera, sigma / 255, args.draws, i, args.bm3d)
            rows.append({"camera": camera, "sigma": sigma, "by": by, "image": i} | found)
            write_csv(args.out, rows)
    rows.sort(key=lambda r: (places.index((r["camera"], r["sigma"])), r["by"], r["image"]))
    print(table(rows, images))


if __name__ == "__main__":
    main()
