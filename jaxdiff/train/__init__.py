"""Training a prior: images → a folder that jaxdiff and diffusers load."""

from jaxdiff.train.loop import train
from jaxdiff.train.settings import CONFIGS, Settings

__all__ = ["CONFIGS", "Settings", "train"]
