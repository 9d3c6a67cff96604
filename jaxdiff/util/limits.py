"""The most that a file may ask for, compared with its header before anything is allocated.

Each is set by an environment variable, JAXDIFF_MAX_TIMESTEPS for `TIMESTEPS`, or by assignment:
`jaxdiff.util.limits.TIMESTEPS = 1_000_000`.
"""

import os


def _most(name: str, default: int) -> int:
    text = os.environ.get(f"JAXDIFF_MAX_{name}", "")
    return int(text) if text.isdecimal() else default


SAMPLE_SIZE = _most("SAMPLE_SIZE", 16_384)  # pixels a side
CHANNELS = _most("CHANNELS", 65_536)  # of a layer, or rows of an embedding
LAYERS = _most("LAYERS", 16)  # of a block
BLOCKS = _most("BLOCKS", 12)  # of a network, each at half the size of the one before
TIMESTEPS = _most("TIMESTEPS", 100_000)  # of a noise schedule
JSON_BYTES = _most("JSON_BYTES", 1 << 24)
PICKLE_BYTES = _most("PICKLE_BYTES", 1 << 22)  # of a .bin's names and shapes, without its numbers
PIXELS = _most("PIXELS", 40_000_000)  # height × width of an image
KERNEL_BYTES = _most("KERNEL_BYTES", 1 << 26)  # of a file of kernels, unpacked
PACKED_BYTES = _most("PACKED_BYTES", 1 << 26)  # of packed images that unpack to twice their file


def check(what: str, value: int, limit: str) -> None:
    """Raise a ValueError where `value` is above a limit of this module, by the limit's name.

    Example:
        >>> check("num_train_timesteps", 10**8, "TIMESTEPS")
        Traceback (most recent call last):
        ValueError: num_train_timesteps: expected at most 100000, got 100000000; JAXDIFF_MAX_TIMESTEPS sets another limit
    """
    most = globals()[limit]
    if value > most:
        raise ValueError(
            f"{what}: expected at most {most}, got {value}; JAXDIFF_MAX_{limit} sets another limit"
        )
