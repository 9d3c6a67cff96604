"""`python -m benchmarks.prior A B --images faces64.npz`: which checkpoint is the better prior.

On images that neither was trained on: the mean squared error of ε̂ at fixed timesteps and noise, and
the PSNR of restorations with ΠGDM and DPS, the same measurements and the same noise for each.
"""

import argparse
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.markdown import Markdown
from tqdm.auto import tqdm

import jaxdiff as jd
from jaxdiff import data, metrics
from jaxdiff.samplers.presets import preset
from jaxdiff.train.objective import validation_loss

SAMPLERS = (("pigdm-paper", 20), ("pigdm", 100), ("dps", 100))
SIGMA = 10 / 255


def compare(checkpoint: str, images: np.ndarray, restored: int, levels: int) -> dict[str, float]:
    """One checkpoint's row: images [N, H, W, C] in [0, 1], the first `restored` of them restored."""
    denoiser = jd.Denoiser(*jd.load(checkpoint))
    row = {"validation loss": validation_loss(denoiser, data.to_uint8(images), levels=levels)}
    images = images[:restored]
    blur = jd.operators.Blur(data.motion_kernel(17, 0), images.shape[1:3])
    noise = np.random.default_rng(0).standard_normal(images.shape)
    y = np.asarray(blur(images) + SIGMA * noise, np.float32)
    for name, count in SAMPLERS:
        steps = denoiser.schedule.steps(count)
        scores = []
        for i in tqdm(range(restored), desc=f"{checkpoint}, {name} {count}", unit="image"):
            sampler = preset(name).sampler(denoiser, blur, y[i], SIGMA)
            draw = jd.sample(sampler, steps, key=jax.random.fold_in(jax.random.key(0), i))
            scores.append(metrics.psnr(np.asarray(draw)[0], images[i]))
        row[f"{name} {count}, dB"] = float(np.mean(scores))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Compare checkpoints as priors: validation loss, and PSNR of restorations."
    )
    parser.add_argument("checkpoints", nargs="+", help="faces64, folders or hub ids")
    parser.add_argument("--images", type=Path, required=True, help="held-out: a folder or .npz")
    parser.add_argument("--n", type=int, default=500, help="images for the loss (default 500)")
    parser.add_argument("--restored", type=int, default=24, help="images restored (default 24)")
    parser.add_argument("--levels", type=int, default=4, help="timesteps an image (default 4)")
    parser.add_argument("--out", type=Path, help="a .md file to write as well")
    arguments = parser.parse_args()
    size = jd.load(arguments.checkpoints[0])[0].config.size
    if size is None:
        parser.error(f"{arguments.checkpoints[0]} names no sample_size in its config")
    images = data.load_images(arguments.images, size, n=arguments.n, split="val")
    rows = {
        name: compare(name, images, arguments.restored, arguments.levels)
        for name in arguments.checkpoints
    }
    columns = list(next(iter(rows.values())))
    lines = ["| checkpoint | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for name, row in rows.items():
        values = (f"{v:.5f}" if "loss" in k else f"{v:.2f}" for k, v in row.items())
        lines.append(f"| {name} | " + " | ".join(values) + " |")
    table = "\n".join(lines) + "\n"
    Console().print(Markdown(table))
    if arguments.out:
        arguments.out.write_text(table)


if __name__ == "__main__":
    main()
