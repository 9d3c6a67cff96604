"""`python -m benchmarks.mixture`: samplers on a posterior with many modes, which is known exactly.

The test bed of Cardoso et al. 2024 (MCGDiff, arXiv 2308.07983, section 4.1): 25 Gaussians of
covariance I around (8i, 8j, 8i, 8j, …), i and j from −2 to 2, weighted by squares of normal
numbers; a measurement of d_y numbers by a matrix with random singular vectors and singular values
uniform in [0, 1], its noise uniform in [0, the largest of them]. The figure is the sliced
1-Wasserstein distance between a sampler's draws and as many exact ones, a mean over problems.

All is divided by 20 for the samplers, which clip x̂₀ to [-1, 1], and multiplied again for the
figures. Rows go to a CSV as they come; stopped and started again, a run goes on.
"""

import argparse
import operator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import wasserstein_distance
from tqdm.auto import tqdm

import jaxdiff as jd
from benchmarks.posterior import METHODS, stored
from jaxdiff.samplers.presets import preset
from jaxdiff.util.files import replace_file, write_csv
from jaxdiff.util.pytree import pytree

UNIT = 20
DIMENSIONS = ((8, (1, 2, 4)), (80, (1, 2, 4)), (800, (1, 2, 4)))
CONTESTANTS = (
    ("exact", 0),
    *(("spectral", count) for count in (10, 20, 100)),
    *(("pigdm-paper", count) for count in (20, 100)),
    ("pigdm", 100),
    ("dps", 100),
    *((name, preset(name).steps) for name in METHODS),
)
KEYS = ("dimension", "measured", "sampler", "evaluations", "problem", "draws")


@pytree
class Matrix(jd.operators.Linear):
    """x [d, 1, 1] → Mx [d_y, 1, 1]."""

    matrix: Any

    @property
    def shape(self) -> tuple[int, int]:
        """(d, 1)."""
        return self.matrix.shape[1], 1

    def __call__(self, x):
        return jnp.einsum("yd,...dwc->...ywc", jnp.asarray(self.matrix, x.dtype), x)

    def spectral(self, function, x):
        """V f(s²) Vᵀx + f(0)·(x − VVᵀx)."""
        _, s, v = jnp.linalg.svd(jnp.asarray(self.matrix, x.dtype), full_matrices=False)
        seen, none = jnp.einsum("yd,...dwc->...ywc", v, x), function(jnp.zeros((), x.dtype))
        weighed = (function(s**2) - none)[:, None, None] * seen
        return none * x + jnp.einsum("yd,...ywc->...dwc", v, weighed)


def problem(dimension: int, measured: int, seed: int):
    """(prior, operator, measurement, σ), the last three in image units."""
    rng = np.random.default_rng((dimension, measured, seed))
    grid = np.arange(-2, 3)
    means = np.stack([np.tile([8 * i, 8 * j], dimension // 2) for i in grid for j in grid])
    weights = rng.standard_normal(25) ** 2
    prior = jd.priors.GaussianMixture(
        means.reshape(25, dimension, 1, 1) / UNIT,
        np.full(25, 1 / UNIT**2),
        weights,
        jd.Schedule.from_config(),
    )
    u, _, v = np.linalg.svd(rng.standard_normal((measured, dimension)), full_matrices=False)
    values = np.sort(rng.uniform(size=measured))[::-1]
    # Of (x + 1)/2, and so twice the paper's matrix.
    camera = Matrix((2 * (u * values) @ v).astype(np.float32))
    sigma = rng.uniform() * values[0] / UNIT
    x0 = means[rng.choice(25, p=prior.weights)] + rng.standard_normal(dimension)
    clean = np.asarray(camera(jnp.asarray((x0 / UNIT + 1) / 2).reshape(dimension, 1, 1)))
    return prior, camera, clean + sigma * rng.standard_normal(clean.shape), sigma


def sliced_wasserstein(a: np.ndarray, b: np.ndarray, rng, slices: int = 100) -> float:
    """The mean 1-Wasserstein distance of a and b [n, d] along random directions."""
    directions = rng.standard_normal((slices, a.shape[1]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    pairs = zip(directions @ a.T, directions @ b.T)
    return float(np.mean([wasserstein_distance(p, q) for p, q in pairs]))


def last(x, info):
    """For `keep=`: the state, which unlike the sample is not clipped to an image."""
    return x


def draw(name: str, count: int, found, draws: int, key) -> np.ndarray:
    """[draws, d], in the paper's units."""
    prior, camera, y, sigma = found
    if name == "exact":
        x = prior.sample_posterior(key, camera, y, sigma, draws)
    else:
        sampler = preset(name).sampler(prior, camera, y, sigma, covariance=prior.covariance)
        _, kept = jd.sample(sampler, sampler.steps(count), key=key, n=draws, keep=last)
        x = np.asarray(jax.vmap(sampler.result)(jax.tree.map(operator.itemgetter(-1), kept)))
    return UNIT * x.reshape(draws, -1)


def measure(dimension: int, measured: int, seed: int, draws: int, wanted: list) -> list[float]:
    """The distance of each wanted (sampler, evaluations), on one problem."""
    found = problem(dimension, measured, seed)
    exact = draw("exact", 0, found, draws, jax.random.key(seed))
    distances = []
    for name, count in wanted:
        x = draw(name, count, found, draws, jax.random.fold_in(jax.random.key(seed), 1))
        distances.append(sliced_wasserstein(x, exact, np.random.default_rng(seed)))
    return distances


def run(path: Path, problems: int, draws: int) -> list[dict]:
    """All rows, read where they are there and measured where not."""
    rows = stored(path, KEYS)
    cases = [(d, m, seed) for seed in range(problems) for d, each in DIMENSIONS for m in each]
    for dimension, measured, seed in tqdm(cases, unit="problem"):
        keys = {
            (str(dimension), str(measured), name, str(count), str(seed), str(draws)): (name, count)
            for name, count in CONTESTANTS
        }
        missing = [key for key in keys if key not in rows]
        if missing:
            wanted = [keys[key] for key in missing]
            distances = measure(dimension, measured, seed, draws, wanted)
            for key, distance in zip(missing, distances):
                rows[key] = dict(zip(KEYS, key)) | {"distance": round(distance, 4)}
            write_csv(path, list(rows.values()))
    return list(rows.values())


def table(rows: list[dict]) -> str:
    """A row for each pair of dimensions, a column for each sampler: mean ± 1.96 standard errors."""
    names = [f"{name}, {count}" if count else name for name, count in CONTESTANTS]
    lines = ["| d | d_y | " + " | ".join(names) + " |", "|---:|---:|" + "---:|" * len(names)]
    for dimension, each in DIMENSIONS:
        for measured in each:
            cells = []
            for name, count in CONTESTANTS:
                key = (str(dimension), str(measured), name, str(count))
                values = [
                    float(r["distance"]) for r in rows if tuple(r[k] for k in KEYS[:4]) == key
                ]
                error = 1.96 * np.std(values) / np.sqrt(max(len(values), 1))
                cells.append(f"{np.mean(values):.2f} ± {error:.2f}" if values else "–")
            lines.append(f"| {dimension} | {measured} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mixture", description=__doc__)
    parser.add_argument("--problems", type=int, default=10, help="of each size (default 10)")
    parser.add_argument("--draws", type=int, default=300, help="of each sampler (default 300)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/posterior-results"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows = run(args.out / "mixture.csv", args.problems, args.draws)
    text = (
        "# A mixture of 25 Gaussians\n\nSliced 1-Wasserstein distance to the exact posterior, mean "
    )
    text += f"± 1.96 standard errors over {args.problems} problems, {args.draws} draws of each. "
    text += '"exact": other exact draws, the floor.\n\n'
    text += table([r for r in rows if r["draws"] == str(args.draws)])
    replace_file(args.out / "mixture.md", lambda p: Path(p).write_text(text, encoding="utf-8"))
    print(text)


if __name__ == "__main__":
    main()
