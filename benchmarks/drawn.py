"""`python -m benchmarks.drawn`: on a Gaussian prior, the samplers that no recursion describes.

Their mean and spread over many draws against the exact posterior's, as `benchmarks.affine` has them
of the others without Monte Carlo. Rows go to a CSV as they come; stopped and started again, a run goes on.
"""

import argparse
from pathlib import Path

import jax
import numpy as np
from tqdm.auto import tqdm

import jaxdiff as jd
from benchmarks import affine
from jaxdiff.samplers.presets import preset
from jaxdiff.util.files import read_csv, write_csv

NAMES = ("dps", "fastdips", "sitcom", "reddiff", "pnpdm", "tds", "daps")
FILE = Path("benchmarks/posterior-results/gaussian.csv")


def law(name: str, problem: affine.Problem, count: int, draws: int):
    """Mean and variance by frequency of `draws` samples, in states' units."""
    sampler = preset(name).sampler(problem.prior, problem.blur, problem.y, problem.sigma)
    images = jd.sample(sampler, sampler.steps(count), key=jax.random.key(0), n=draws)
    found = np.fft.fft2(2 * np.asarray(images, np.float64)[..., 0] - 1, norm="ortho")
    return found.mean(0), found.var(0)


def measure(name: str, draws: int, size: int = 8) -> dict:
    """One row: with the sampler's usual steps and options."""
    problem, count = affine.example(size), preset(name).steps
    sampler = preset(name).sampler(problem.prior, problem.blur, problem.y, problem.sigma)
    found = affine.distances(*law(name, problem, count, draws), problem)
    evaluations = count * sampler.evaluations
    return {"sampler": name, "evaluations": evaluations, "draws": draws} | found


def run(path: Path, draws: int, names=NAMES) -> list[dict]:
    """The rows, read where they are there and measured where not."""
    found = read_csv(path, ("sampler",), ("evaluations", "draws")) if path.exists() else []
    rows = {row["sampler"]: row for row in found if row["draws"] == draws}
    for name in tqdm([n for n in names if n not in rows], unit="sampler"):
        rows[name] = measure(name, draws)
        write_csv(path, list(rows.values()))
    return [rows[name] for name in names]


def table(rows: list[dict]) -> str:
    """As markdown."""
    lines = [
        "| sampler | evaluations | draws | error of the mean | ratio of spreads | 2-Wasserstein |"
    ]
    lines.append("|---|---:|---:|---:|---:|---:|")
    for r in rows:
        lines.append(
            f"| {r['sampler']} | {r['evaluations']} | {r['draws']} | {r['mean_error']:.2g} "
            f"| {r['spread_ratio']:.3f} | {r['wasserstein']:.2g} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drawn", description=__doc__)
    parser.add_argument("--draws", type=int, default=4000, help="of each sampler (default 4000)")
    parser.add_argument("--out", type=Path, default=FILE)
    args = parser.parse_args()
    print(table(run(args.out, args.draws)))


if __name__ == "__main__":
    main()
