"""`python -m benchmarks.tables PHOTOGRAPHS`: what a spectral covariance is measured on, and its use.

Tables of the bundled prior measured on photographs, on its own samples, and on photographs of
half the size, each used to restore photographs that none has seen, at 64×64 and at 32×32.
"""

import argparse
from pathlib import Path

import jax

import jaxdiff as jd
from benchmarks.posterior import Cell, measure
from jaxdiff import data
from jaxdiff.util.files import replace_file

CAMERAS = {64: "blur:motion:17,1", 32: "blur:motion:9,1"}
KEY = jax.random.key(0)


def tables(denoiser, photographs: Path, count: int) -> dict[str, jd.SpectralCovariance]:
    """By what they were measured on."""

    def estimate(images):
        return jd.SpectralCovariance.estimate(denoiser, images, key=KEY, n=count, progress=True)

    whole, half = (
        data.load_images(photographs, (size, size), n=count, split="train") for size in (64, 32)
    )
    return {
        "the bundled one": jd.SpectralCovariance.load("faces64"),
        f"{count} photographs": estimate(whole),
        f"{count} of the prior's own samples": estimate(None),
        f"{count} photographs at 32×32": estimate(half),
    }


def compare(photographs: Path, count: int, images: int, draws: int) -> str:
    """A row for each table and size, as markdown."""
    denoiser = jd.Denoiser(*jd.load("faces64"))
    lines = [
        f"| restored at | table of | one draw, dB | mean of {draws}, dB | error/spread | coverage |",
        "|---|---|---:|---:|---:|---:|",
    ]
    measured = tables(denoiser, photographs, count)
    for size, camera in CAMERAS.items():
        seen = data.load_images(photographs, (size, size), n=images, split="val")
        for name, covariance in measured.items():
            row = measure(Cell(camera, 10, "spectral", 10), seen, draws, denoiser, covariance)
            lines.append(
                f"| {size}×{size} | {name} | {row['psnr_draw']:.2f} | {row['psnr_mean']:.2f} "
                f"| {row['error_over_spread']:.2f} | {row['coverage']:.3f} |"
            )
            print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__)
    parser.add_argument("photographs", type=Path, help="with splits train and val: faces64.npz")
    parser.add_argument("--count", type=int, default=128, help="to measure on (default 128)")
    parser.add_argument("--images", type=int, default=24, help="to restore (default 24)")
    parser.add_argument("--draws", type=int, default=9, help="of each (default 9)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/posterior-results"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    text = (
        f"# Where a table comes from\n\n{args.images} photographs, σ = 10/255, 10 evaluations.\n\n"
    )
    text += compare(args.photographs, args.count, args.images, args.draws)
    replace_file(args.out / "tables.md", lambda p: Path(p).write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    main()
