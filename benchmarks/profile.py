"""`python -m benchmarks.profile`: where the time of a sampling step goes, by kind of operation.

Writes JAX's trace (for TensorBoard or Perfetto) and a table. The operations of one plane are added up over
its lines: of an accelerator over its streams, of a CPU over its threads.
"""

import argparse
import collections
import re
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.markdown import Markdown

import jaxdiff as jd
from jaxdiff.samplers.presets import preset
from jaxdiff.util.files import replace_file

AROUND = ("ThunkExecutor", "while", "call", "conditional")  # hold other operations


def operations(trace: Path) -> dict[str, tuple[float, int]]:
    """(milliseconds, how often) of each kind: an operation's name without its number."""
    newest = max(trace.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    planes = list(jax.profiler.ProfileData.from_file(str(newest)).planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    spent: dict[str, list[float]] = collections.defaultdict(list)
    for plane in devices or [plane for plane in planes if plane.name.startswith("/host:")]:
        for line in plane.lines:
            # A device has its operations twice, as XLA's and as kernels; a host's threads do more.
            if devices and not line.name.startswith("Stream"):
                continue
            if not devices and not re.match(r"tf_XLA|.*xla", line.name, re.IGNORECASE):
                continue
            for event in line.events:
                kind = re.sub(r"[._]?\d+$", "", event.name)
                if not kind.startswith(AROUND):
                    spent[kind].append(event.duration_ns / 1e6)
    return {kind: (sum(times), len(times)) for kind, times in spent.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Where a sampling step's time goes.")
    parser.add_argument("--model", default="faces64", help="for jaxdiff.load (default faces64)")
    parser.add_argument("--sampler", default="dps", help="such as dps, pigdm (default dps)")
    parser.add_argument("--n", type=int, default=8, help="samples at once (default 8)")
    parser.add_argument("--steps", type=int, default=5, help="steps (default 5)")
    parser.add_argument("--top", type=int, default=20, help="rows of the table (default 20)")
    parser.add_argument("--out", type=Path, default=Path("profile"), help="the folder to write")
    arguments = parser.parse_args()
    unet, schedule = jd.load(arguments.model)
    size = unet.config.size
    if size is None:
        raise SystemExit(f"--model: {arguments.model} names no sample_size in its config")
    blur = jd.operators.Blur(np.ones((9, 9)) / 81, size)
    y = np.random.default_rng(0).random((*size, unet.config.in_channels)).astype("f")
    sampler = preset(arguments.sampler).sampler(jd.Denoiser(unet, schedule), blur, y, 10 / 255)

    def draw(seed):
        images = jd.sample(
            sampler, schedule.steps(arguments.steps), key=jax.random.key(seed), n=arguments.n
        )
        jax.block_until_ready(images)

    draw(0)
    with jax.profiler.trace(str(arguments.out)):
        draw(1)
    found = sorted(operations(arguments.out).items(), key=lambda item: -item[1][0])
    total = sum(spent for _, (spent, _) in found)
    lines = [
        f"{arguments.sampler}, {arguments.n} samples, {arguments.steps} steps of {arguments.model} on "
        f"{jax.devices()[0].device_kind}: {total:.1f} ms of operations.",
        "",
        "| operation | ms | share | calls |",
        "|---|---:|---:|---:|",
    ]
    for kind, (spent, calls) in found[: arguments.top]:
        lines.append(f"| `{kind}` | {spent:.1f} | {spent / total:.3f} | {calls} |")
    text = "\n".join(lines) + "\n"
    replace_file(arguments.out / "profile.md", lambda p: Path(p).write_text(text, encoding="utf-8"))
    Console().print(Markdown(text))


if __name__ == "__main__":
    main()
