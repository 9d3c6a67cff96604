"""Training a prior: images → a folder that jaxdiff and diffusers load."""

from jaxdiff.train.loop import CONFIGS, Settings, train

__all__ = ["CONFIGS", "Settings", "train"]
