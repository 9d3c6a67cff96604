"""Training a prior: images → a folder that jaxdiff and diffusers load."""

from jaxdiff.util.extras import need

need("train", "optax", "orbax", "tensorstore")

from jaxdiff.train.loop import train  # noqa: E402
from jaxdiff.train.settings import CONFIGS, Settings  # noqa: E402

__all__ = ["CONFIGS", "Settings", "train"]
