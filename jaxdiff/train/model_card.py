"""What a run of training is shown as: a diffusers folder with a card, samples and the loss."""

from pathlib import Path

import jax
import numpy as np

import jaxdiff as jd
from jaxdiff import plot
from jaxdiff.data.images import write_image
from jaxdiff.data.pixels import Pixels
from jaxdiff.util.files import replace_file, write_text


def export(model: Path, denoiser: jd.Denoiser, rows: list[dict], card: str, sample: bool) -> None:
    """The diffusers folder of a run with what people look at: samples, loss plot, card."""
    jd.save(model, denoiser.unet, denoiser.schedule)
    if sample:
        steps = denoiser.schedule.steps(50)
        images = jd.sample(jd.DDIM(denoiser), steps, key=jax.random.key(0), n=16)
        replace_file(model / "samples.png", lambda p: write_image(p, plot.grid(np.asarray(images))))
    figure = plot.training(rows)
    replace_file(model / "loss.png", lambda p: figure.savefig(p, dpi=110, format="png"))
    write_text(model / "README.md", card)


def model_card(
    described: dict, settings, pixels: Pixels, rows: list[dict], licence: str, command: str
) -> str:
    """The model card of a run: what it is, how it was made, what it may be used for."""
    config = described["config"]
    size, last = config["sample_size"], rows[-1]
    start = f"`{described['init']}`" if described["init"] else "random weights"
    return f"""---
license: {licence.split(":")[0].lower() or "other"}
library_name: diffusers
pipeline_tag: unconditional-image-generation
tags: [ddpm, jaxdiff]
---
# An unconditional DDPM, {size}×{size}

![samples](samples.png)

- **Network**: diffusers' `UNet2DModel`, channels {", ".join(map(str, config["block_out_channels"]))}.
  **Schedule**: linear β from 1e-4 to 0.02, 1000 steps, predicts ε.
- **Data**: {len(pixels.train):,} images of `{Path(described["source"]).name}`, {f"squares of {size}×{size}" if settings.crop else f"{size}×{size}"}; {len(pixels.skipped)} skipped;
  {len(pixels.validation)}{" squares" if settings.crop else ""} held out for validation.
- **Training**: step {last["step"]:,} of {settings.steps:,}, batches of {settings.batch_size}, from {start}; these are the
  averaged weights (EMA {settings.ema}). Validation loss (mean squared error of ε̂): {last["validation_loss"]:.5f}.
- **Licence**: {licence or "not named: the images' licence decides"}.

```
{command or "python: jaxdiff.train.train(...), settings in settings.json"}
```

![loss](loss.png)

It loads with `jaxdiff.load(FOLDER)` and with `diffusers.DDPMPipeline.from_pretrained(FOLDER)`.
"""
