"""BM3D's deblurring, in a Python of its own: `PYTHON benchmarks/with_bm3d.py IN.npz OUT.npy`.

`bm3d` 3.0.9 needs numpy < 1.24, scipy < 1.11 and the system's OpenBLAS; version 4 fails in its deblurring's second
stage. Free for non-commercial use.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np


def deblurred(python: str, y: np.ndarray, sigma: float, kernel: np.ndarray) -> np.ndarray:
    """An image [H, W, C] from its circular blur y, whose noise has `sigma`."""
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "given.npz", Path(folder) / "found.npy"
        np.savez(given, y=np.float64(y), sigma=sigma, kernel=kernel)
        subprocess.run([python, __file__, str(given), str(found)], check=True, capture_output=True)
        return np.clip(np.load(found), 0, 1).astype(np.float32)


if __name__ == "__main__":
    import bm3d  # pyright: ignore[reportMissingImports]

    given = np.load(sys.argv[1])
    # Its kernels' middle is where ours is.
    found = bm3d.bm3d_deblurring(given["y"], float(given["sigma"]), given["kernel"])
    np.save(sys.argv[2], found)
