"""What a run is made of: its network and its settings."""

import dataclasses

CONFIGS = {
    # 4.3 million parameters, the bundled prior's: attention at a quarter of the size and below
    "small": {
        "sample_size": 64,
        "block_out_channels": (32, 64, 128, 128),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        "attention_head_dim": None,
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "norm_eps": 1e-6,
        "norm_num_groups": 16,
    }
}
# The same without attention: it knows neither the image's size nor where in it a pixel is.
CONFIGS["convolutional"] = CONFIGS["small"] | {
    "down_block_types": ("DownBlock2D",) * 4,
    "up_block_types": ("UpBlock2D",) * 4,
    "add_attention": False,
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a run is made of, besides its images and its network.

    `learning_rate` is the highest, after `warmup` steps; `clip` the largest norm of a gradient;
    `level_power` = p draws the timesteps as T·u^p, u uniform: above 1, more of them have little noise, as
    restoring photographs asks for; `ema` the decay of the averaged weights; `half_size` the part of the steps that see the images
    at half the size; `flip` mirrors half of them; `crop` takes squares at random places of images at
    their own scale.

    Raises:
        ValueError: for a number out of its range.
    """

    steps: int = 50_000
    batch_size: int = 32
    learning_rate: float = 3e-4
    warmup: int = 500
    weight_decay: float = 1e-4
    clip: float = 1.0
    level_power: float = 1.0
    ema: float = 0.9995
    half_size: float = 0.3
    flip: bool = True
    crop: bool = False
    seed: int = 0

    def __post_init__(self):
        for name in ("steps", "batch_size", "learning_rate", "clip", "level_power"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: expected a number > 0, got {getattr(self, name)}")
        for name in ("ema", "half_size"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: expected a number in [0, 1), got {getattr(self, name)}")
