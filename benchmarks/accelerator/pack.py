"""`python -m benchmarks.accelerator.pack SOURCE.npz OUT.npz`: packed photographs, small enough to be carried."""

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image

from jaxdiff.data.images import packed_files
from jaxdiff.util.files import replace_file


def smaller(content: bytes, side: int, quality: int) -> bytes:
    """A JPEG with `side` pixels at most, its colours at full resolution."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description="Make packed photographs small enough to carry.")
    parser.add_argument("source", type=Path, help="an .npz of packed images, with train and val")
    parser.add_argument("out", type=Path, help="the .npz to write")
    parser.add_argument("--side", type=int, default=360, help="their long side (default 360)")
    parser.add_argument("--quality", type=int, default=90, help="of the JPEGs (default 90)")
    arguments = parser.parse_args()
    arrays = {}
    for split in ("train", "val"):
        files = packed_files(arguments.source, split)
        files = [smaller(bytes(content), arguments.side, arguments.quality) for content in files]
        arrays[f"{split}_bytes"] = np.frombuffer(b"".join(files), np.uint8)
        arrays[f"{split}_offsets"] = np.cumsum([0, *map(len, files)])
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(arguments.out, lambda p: np.savez(p, **arrays))
    print(f"{arguments.out}: {arguments.out.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
