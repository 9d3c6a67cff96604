"""Convolutions and group normalisation in C for XLA's CPU backend, built by the machine's own compiler at their first use.

XLA's take two to five times as long (the numbers stand in `platform.py`). As `torch.compile` does,
this asks for the C compiler of the machine, once, for a second or two: the library is kept in the
user's cache folder. Where there is no compiler, or the environment says
`JAXDIFF_NATIVE=0`, XLA's convolutions are used.
"""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from platformdirs import user_cache_dir

HEADERS, SOURCES = (
    [Path(__file__).with_name(name) for name in names]
    for names in (("common.h", "tiles.h"), ("conv.c", "winograd.c", "norm.c"))
)
CONV, CONV_GRADIENT = "jaxdiff_conv", "jaxdiff_conv_gradient"
NORM, NORM_GRADIENT = "jaxdiff_group_norm", "jaxdiff_group_norm_gradient"


@functools.cache
def available() -> bool:
    """Whether the library is there, built and known to XLA: tried at the first call."""
    if os.environ.get("JAXDIFF_NATIVE") == "0":
        return False
    try:
        library = ctypes.CDLL(str(build(Path(user_cache_dir("jaxdiff")))))
    except OSError:  # no compiler, one that fails, or no folder to write
        return False
    for name in (CONV, CONV_GRADIENT, NORM, NORM_GRADIENT):
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(library, name)), platform="cpu")
    return True


def build(folder: Path) -> Path:
    """The compiled library in `folder`, where its name says of what and for what it was built.

    Raises:
        OSError: where no compiler is found, or it fails.
    """
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if compiler is None:
        raise FileNotFoundError("no C compiler: install gcc or clang")
    flags = ["-O3", "-march=native", "-std=gnu11", "-shared", "-fPIC"]
    described = subprocess.run(
        [compiler, *flags, "-dM", "-E", "-"], input=b"", capture_output=True
    )  # the processor's features too
    texts = [path.read_bytes() for path in (*HEADERS, *SOURCES)]
    of = (*texts, described.stdout, jax.__version__.encode(), *map(str.encode, flags))
    path = folder / f"native-{hashlib.sha256(b'|'.join(of)).hexdigest()[:16]}.so"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            built = Path(temporary) / "native.so"
            command = [compiler, *flags, f"-I{jax.ffi.include_dir()}", *SOURCES, "-o", built]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise OSError(f"{compiler}: {done.stderr.strip()}")
            os.replace(built, path)
    return path


def convolve(x, kernel, bias, stride, padding) -> jax.Array:
    """x [n, H, W, I] with kernel [h, w, I, O], plus bias [O]; float32."""
    sizes = (
        (size + sum(pad) - taps) // stride + 1
        for size, pad, taps in zip(x.shape[1:3], padding, kernel.shape)
    )
    shape = (x.shape[0], *sizes, kernel.shape[3])
    return _call(CONV, shape)(x, kernel, bias, geometry=_geometry(stride, padding))


def convolve_gradient(x, g, shape, stride, padding) -> list[jax.Array]:
    """The gradients of `convolve` to its kernel [h, w, I, O] and bias, from that of its output."""
    return _call(CONV_GRADIENT, shape, shape[3:])(x, g, geometry=_geometry(stride, padding))


def group_norm(x, scale, bias, groups, eps, silu) -> list[jax.Array]:
    """x [n, m, C] normalised, SiLU of it if asked; and [n, groups, 2], the mean and 1/std."""
    call = _call(NORM, x.shape, (x.shape[0], groups, 2))
    return call(x, scale, bias, settings=np.array([groups, eps, silu], np.float32))


def group_norm_gradient(x, scale, bias, stats, dy, groups, eps, silu) -> list[jax.Array]:
    """The gradients to x, scale and bias, from that of the output and the statistics."""
    call = _call(NORM_GRADIENT, x.shape, scale.shape, bias.shape)
    settings = np.array([groups, eps, silu], np.float32)
    return call(x, scale, bias, stats, dy, settings=settings)


def _geometry(stride, padding):
    return np.array([stride, padding[0][0], *padding[1]], np.int64)


def _call(name, *shapes) -> Any:
    results = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
    result = results if len(results) > 1 else results[0]
    return jax.ffi.ffi_call(name, result, vmap_method="sequential")
