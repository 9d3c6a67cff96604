"""What the comments of the library call measured: each choice beside what was not chosen.

`python -m benchmarks.choices` times both sides in turn, in one process, and adds a dated section to
`benchmarks/choices.md`: medians, and how many times as long the other takes.
"""

import argparse
import datetime
import itertools
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxdiff as jd
from jaxdiff.linalg import small_matrices
from jaxdiff.nn import layers, native
from jaxdiff.nn.convolve import convolve
from jaxdiff.samplers import Draws
from jaxdiff.util.platform import compiler_options, map_samples

FILE = Path(__file__).with_name("choices.md")
RNG = np.random.default_rng(0)


class Choice(NamedTuple):
    """Where it is made, what is compared, and both sides: functions of the arguments."""

    where: str
    case: str
    chosen: Callable
    other: Callable
    arguments: tuple[Any, ...]
    dtype: str = "float32"


def normal(*shape: int, dtype="f") -> np.ndarray:
    return RNG.standard_normal(shape).astype(dtype)


def xla(x, kernel, bias, stride=1, padding=((1, 1), (1, 1))):
    numbers = ("NHWC", "HWIO", "NHWC")
    y = lax.conv_general_dilated(x, kernel, (stride,) * 2, padding, dimension_numbers=numbers)
    return y + bias


def ours(x, kernel, bias):
    return layers.conv2d(x, kernel, bias, 1, ((1, 1), (1, 1)))


def gradient(convolution):
    return jax.grad(lambda x, k, b: jnp.sum(convolution(x, k, b) ** 2), (0, 1))


def spread(g, kernel):
    """The gradient of a convolution of stride 2 to its input, through an image with zeros between."""
    n, h, w, c = g.shape
    wide = jnp.zeros((n, 2 * h, 2 * w, c), g.dtype).at[:, ::2, ::2].set(g)
    flipped = lax.optimization_barrier(kernel[::-1, ::-1].swapaxes(2, 3))
    return xla(wide, flipped, 0.0, 1, ((2, 1), (2, 1)))[:, :-1, :-1]


def phases(g, kernel):
    h, w = g.shape[1:3]
    return layers._input_gradient(g, kernel, 2, ((0, 1), (0, 1)), (2 * h, 2 * w))


def plain_norm(x, scale, bias):
    groups = x.reshape(*x.shape[:2], 16, -1)
    mean, variance = groups.mean((1, 3), keepdims=True), groups.var((1, 3), keepdims=True)
    y = ((groups - mean) * lax.rsqrt(variance + 1e-6)).reshape(x.shape)
    return jax.nn.silu(y * scale + bias)


def rows(x, k, b):
    return convolve(x, k, b, 1, ((1, 1), (1, 1)))


def norm(x, s, b):
    return native.group_norm(x, s, b, 16, 1e-6, True)[0]


def step(d, x):
    return jax.grad(lambda x: jnp.sum(d(x, 500) ** 2))(x)


def in_groups(d, x):
    return map_samples(lambda one: step(d, one), x.shape[1] * x.shape[2])(x)


def one_by_one(d, x):
    return lax.map(lambda one: step(d, one), x)


def choices() -> Iterator[Choice]:
    for size, channels in ((64, 32), (16, 128), (128, 128)):
        case = f"3×3 convolution, {size}², {channels} channels"
        data = normal(1, size, size, channels), normal(3, 3, channels, channels), normal(channels)
        yield Choice("nn/convolve.py: C, XLA", case, ours, xla, data)
    data = normal(8, 32, 32, 64), normal(3, 3, 64, 64), normal(64)
    case = "its gradients, batch 8, 32², 64 channels"
    yield Choice("nn/convolve.py: C, XLA", case, gradient(ours), gradient(xla), data)
    data = normal(1, 32, 32, 64, dtype="d"), normal(3, 3, 64, 64, dtype="d"), normal(64, dtype="d")
    case = "3×3 convolution in float64, 32², 64 channels"
    yield Choice("nn/convolve.py: products of rows, XLA", case, rows, xla, data, "float64")
    data = normal(1, 64 * 64, 32), normal(32), normal(32)
    yield Choice(
        "nn/norm.py: C, XLA", "GroupNorm and SiLU, 64², 32 channels", norm, plain_norm, data
    )
    data = normal(1, 32, 32, 64), normal(3, 3, 64, 64)
    case = "gradient of a strided convolution to its input, 64², 64 channels"
    yield Choice("nn/layers.py: by phase, spread with zeros", case, phases, spread, data)
    a = normal(64, 33, 3, 3)
    matrices = (a @ a.swapaxes(-1, -2) + 0.1 * np.eye(3, dtype="f"),)
    case = "Cholesky factors of 2,112 matrices 3×3"
    yield Choice(
        "linalg/small_matrices.py: unrolled, LAPACK",
        case,
        small_matrices.cholesky,
        jnp.linalg.cholesky,
        matrices,
    )
    denoiser, x = jd.Denoiser(*jd.load("faces64")), normal(8, 64, 64, 3)
    case = "faces64 with its gradient, 8 samples"
    yield Choice(
        "util/platform.py: in groups, one by one", case, in_groups, one_by_one, (denoiser, x)
    )


def in_a_loop(function):
    """As the library calls it: in the body of a scan, where XLA's own may lose their threads."""

    def looped(*arguments):
        def body(total, _):
            result = jax.tree.leaves(function(*arguments))[0]
            # Nothing may be moved out of the loop.
            return total + lax.optimization_barrier(result).ravel()[0] * 0, None

        return lax.scan(body, jnp.zeros((), jax.tree.leaves(arguments)[0].dtype), length=3)[0]

    return jax.jit(looped, compiler_options=compiler_options())


def compare(choice: Choice, repeats: int) -> tuple[float, float]:
    """Milliseconds of the chosen side, and how many times as long the other takes: medians."""
    with jax.enable_x64(choice.dtype == "float64"):
        sides = [in_a_loop(choice.chosen), in_a_loop(choice.other)]
        seconds: list[list[float]] = [[], []]
        for turn in range(repeats + 1):
            for side, found in zip(sides, seconds):
                started = time.perf_counter()
                jax.block_until_ready(side(*choice.arguments))
                if turn:
                    found.append(time.perf_counter() - started)
    ratios = [b / a for a, b in zip(*seconds)]
    return 1e3 * float(np.median(seconds[0])) / 3, float(np.median(ratios))


def memory() -> Iterator[tuple[str, str, str]]:
    """Temporary memory of a DPS step with and without remat."""
    unet, schedule = jd.load("faces64")
    blur = jd.operators.Blur(np.ones((3, 3)) / 9, (64, 64))
    c = jax.tree.map(lambda a: a[0], schedule.steps(10).astype(np.float32))
    sizes = []
    for remat in (True, False):
        sampler = jd.DPS(
            jd.Denoiser(unet, schedule, remat=remat), blur, np.full((64, 64, 3), 0.5, "f")
        )
        step = jax.jit(
            lambda s, x, c: s.step(x, c, Draws(x))[0], compiler_options=compiler_options()
        )
        program = step.lower(sampler, jnp.zeros((64, 64, 3)), c).compile()
        analysis: Any = program.memory_analysis()
        sizes.append(analysis.temp_size_in_bytes / 1e6)
    yield (
        "nn/remat.py: computed again, kept",
        "temporaries of a DPS step of faces64",
        f"{sizes[0]:.1f} MB | {sizes[1] / sizes[0]:.2f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15, help="turns (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=FILE, help="default: %(default)s")
    arguments = parser.parse_args()
    lines = [
        f"| {c.where} | {c.case} | {t:.2f} ms | {r:.2f} |"
        for c, (t, r) in ((c, compare(c, arguments.repeats)) for c in choices())
    ]
    lines += [f"| {' | '.join(row)} |" for row in memory()]
    heading = f"## {datetime.date.today()}: {os.cpu_count()} cores, {platform.machine()}, jax {jax.__version__}"
    table = ["| where: chosen, other | case | chosen | other, × |", "|---|---|---:|---:|"]
    before = (
        arguments.out.read_text(encoding="utf-8")
        if arguments.out.exists()
        else str(__doc__).splitlines()[0] + "\n"
    )
    text = "\n".join(itertools.chain([before.rstrip(), "", heading, ""], table, lines)) + "\n"
    arguments.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
