"""`python -m benchmarks.seams PHOTOS.npz`: whether the windows of `Tiled` can be seen.

Of photographs noised to a level: the mean squared difference of neighbouring pixels of x̂₀ across the borders of
windows, over that elsewhere. A photograph's own differences are not the same everywhere, so the ratio
stands beside that of the network on the whole photograph, at the same places.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxdiff as jd
from jaxdiff import data
from jaxdiff.priors.tiled import Tiled


def borders(tiled: Tiled, at, axis: int) -> np.ndarray:
    """The indices i between whose pixels i and i + 1 a window begins or ends."""
    starts, weights, _ = tiled._axis(axis, at)
    starts = np.asarray(starts)
    edges = np.concatenate([starts, starts + len(weights)]) - 1
    return np.unique(edges[(edges >= 0) & (edges < tiled.size[axis] - 1)])


def ratio(image: np.ndarray, tiled: Tiled, at) -> float:
    """Mean squared difference across borders over that elsewhere, of images [N, H, W, C]."""
    at_borders, elsewhere = [], []
    for axis in (0, 1):
        squares = (np.diff(image, axis=axis + 1) ** 2).mean((0, 2 - axis, 3))
        places = borders(tiled, at, axis)
        at_borders.append(squares[places])
        elsewhere.append(np.delete(squares, places))
    return float(np.concatenate(at_borders).mean() / np.concatenate(elsewhere).mean())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.seams", description=__doc__)
    parser.add_argument("photographs", type=Path, help="an .npz of packed images, of which val")
    parser.add_argument("--model", default="faces64")
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--window", type=int, default=64)
    parser.add_argument("--overlap", type=int, default=16)
    parser.add_argument("--timesteps", type=int, nargs="+", default=[20, 50, 120, 250, 500])
    args = parser.parse_args()
    shape = (args.size, args.size)
    photographs = data.load_images(args.photographs, shape, "crop", split="val")
    whole = jd.prior(args.model)
    tiled = Tiled(whole, shape, args.window, args.overlap)
    draw = jax.jit(lambda x, z, at: at.alpha * (2 * x - 1) + at.sigma * z)
    x0_hat = jax.jit(lambda p, x, at: p(x, at))
    print("| t | σ/α | windows | whole | windows over whole |\n|---:|---:|---:|---:|---:|")
    for t in args.timesteps:
        at = jax.tree.map(jnp.float32, whole.level(t))
        found: list[list[np.ndarray]] = [[], []]
        for i, x in enumerate(photographs):
            x_t = draw(x, jax.random.normal(jax.random.key(i), x.shape), at)
            found[0].append(np.asarray(x0_hat(tiled, x_t, at)))
            found[1].append(np.asarray(x0_hat(whole, x_t, at)))
        one, other = (ratio(np.stack(x), tiled, whole.level(t)) for x in found)
        print(f"| {t} | {at.sigma / at.alpha:.2f} | {one:.4f} | {other:.4f} | {one / other:.4f} |")


if __name__ == "__main__":
    main()
