"""`python -m benchmarks.blind FACES.npz KERNELS.mat`: kernels that were found, and what they are worth.

Each validation image is blurred by one of the kernels, in turn, and restored: with the kernel found
(`jd.Blind`), with the kernel given (the oracle: the spectral sampler), by alternation without draws
(a point for an image, where no blur at all is the most likely), and by the Wiener filter with the kernel
that was found. PSNR is the best over shifts. Rows go to a CSV as they come; started again, a run
goes on.
"""

import argparse
from pathlib import Path

import jax
import numpy as np
from tqdm.auto import tqdm

import jaxdiff as jd
from jaxdiff import data, metrics
from jaxdiff.operators import Blur, UnknownBlur
from jaxdiff.priors import of_size
from jaxdiff.util.files import read_csv, write_csv

FILE = Path("benchmarks/posterior-results/blind.csv")
NUMBERS = (
    "similarity", "psnr", "oracle", "point_similarity", "point_psnr", "wiener", "degraded",
    "error_over_spread",
)  # fmt: skip


def similarity(a, b) -> float:
    """The largest normalised cross-correlation of two kernels over shifts."""
    size = [2 * max(n, m) for n, m in zip(a.shape, b.shape)]
    a, b = (np.fft.fft2(k / np.linalg.norm(k), size) for k in (a, b))
    return float(np.fft.ifft2(a * b.conj()).real.max())


def aligned(image, truth) -> np.ndarray:
    """The image, shifted to where it is nearest to the truth, by quarters of a pixel."""
    spectrum = np.fft.fft2(image, axes=(0, 1))
    correlation = np.fft.ifft2((spectrum.conj() * np.fft.fft2(truth, axes=(0, 1))).sum(-1)).real
    place = np.unravel_index(correlation.argmax(), correlation.shape)
    rows, columns = (np.fft.fftfreq(n) for n in image.shape[:2])
    found = []
    for i in np.arange(place[0] - 0.75, place[0] + 1, 0.25):
        for j in np.arange(place[1] - 0.75, place[1] + 1, 0.25):
            phase = np.exp(-2j * np.pi * (rows[:, None] * i + columns * j))[..., None]
            found.append(np.fft.ifft2(spectrum * phase, axes=(0, 1)).real)
    return min(found, key=lambda shifted: np.sum((shifted - truth) ** 2))


def measure(denoiser, covariance, image, kernel, sigma: float, size: int, n: int, seed: int):
    """One row of numbers."""
    rng, key = np.random.default_rng(seed), jax.random.key(seed)
    blur, looked_for = Blur(kernel, image.shape[:2]), UnknownBlur(size)
    y = np.asarray(blur(image) + sigma * rng.standard_normal(image.shape), np.float32)
    blind = jd.restore(y, looked_for, sigma, prior=denoiser, covariance=covariance, n=n, key=key)
    given = jd.restore(y, blur, sigma, prior=denoiser, covariance=covariance, n=n, key=key)
    point = jd.Blind(denoiser, looked_for, y, sigma, covariance, draw=False)
    alone, kernels = jd.sample(
        point, point.steps(blind.steps), key=key, keep=lambda x, info: info["kernel"]
    )
    found, alternated = np.asarray(blind.kernels), np.asarray(kernels[-1, 0])
    filtered = metrics.wiener(y, Blur(found.mean(0), image.shape[:2]), sigma, image.shape)
    draws = np.stack([aligned(x, image) for x in np.asarray(blind.draws)])

    def psnr(x):
        return metrics.psnr(aligned(np.asarray(x), image), image)

    calibrated = metrics.calibration(draws[None], image[None]) if n > 1 else {}
    return dict(
        similarity=float(np.mean([similarity(k, kernel) for k in found])),
        psnr=psnr(blind.mean),
        oracle=metrics.psnr(np.asarray(given.mean), image),
        point_similarity=similarity(alternated, kernel),
        point_psnr=psnr(alone[0]),
        wiener=psnr(filtered),
        degraded=psnr(y),
        error_over_spread=calibrated.get("error_over_spread", np.nan),
    )


def table(rows: list[dict]) -> str:
    """Medians by noise level, as markdown."""
    lines = [
        "| σ·255 | images | kernel's similarity | PSNR, mean of draws | under the kernel given "
        "| a point: similarity, PSNR | Wiener, kernel found | error/spread |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for sigma in sorted({row["sigma"] for row in rows}):
        some = [row for row in rows if row["sigma"] == sigma]
        m = {name: float(np.median([row[name] for row in some])) for name in NUMBERS}
        below = float(np.median([row["oracle"] - row["psnr"] for row in some]))
        lines.append(
            f"| {sigma:g} | {len(some)} | {m['similarity']:.3f} | {m['psnr']:.2f} | {below:+.2f} below "
            f"| {m['point_similarity']:.3f}, {m['point_psnr']:.2f} | {m['wiener']:.2f} "
            f"| {m['error_over_spread']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.blind", description=__doc__)
    parser.add_argument("images", type=Path, help="an .npz of packed images, of which those of val")
    parser.add_argument("kernels", help="a .mat of kernels")
    parser.add_argument("--model", default="faces64")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument(
        "--crop", action="store_true", help="the middle of images at their own scale"
    )
    parser.add_argument("--size", type=int, default=17, help="of the kernels (default 17)")
    parser.add_argument("--images-of-each", type=int, default=20, help="noise level (default 20)")
    parser.add_argument("--draws", type=int, default=4, help="of each (default 4)")
    parser.add_argument("--sigmas", default="5", help="in 1/255, with commas (default 5)")
    parser.add_argument("--out", type=Path, default=FILE)
    args = parser.parse_args()
    kernels = [k for k in data.load_kernels(args.kernels) if max(k.shape) <= args.size]
    shape = (args.image_size, args.image_size)
    how = "crop" if args.crop else "resize"
    images = data.load_images(args.images, shape, how, args.images_of_each, "val")
    denoiser = of_size(jd.prior(args.model), shape)
    covariance = jd.SpectralCovariance.load(args.model)
    rows = []
    if args.out.exists():
        rows = read_csv(args.out, whole=("image", "kernel"))
    done = {(row["sigma"], row["image"]) for row in rows}
    wanted = [(float(s), i) for s in args.sigmas.split(",") for i in range(len(images))]
    for sigma, i in tqdm([w for w in wanted if w not in done], unit="image"):
        found = measure(
            denoiser, covariance, images[i], kernels[i % len(kernels)], sigma / 255, args.size,
            args.draws, i,
        )  # fmt: skip
        rows.append({"sigma": sigma, "image": i, "kernel": i % len(kernels)} | found)
        write_csv(args.out, rows)
    print(table(rows))


if __name__ == "__main__":
    main()
