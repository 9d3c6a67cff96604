"""Convolutions and group normalisation in C for XLA's CPU backend, built by the machine's own compiler at their first use.

XLA's take several times as long (benchmarks/choices.md). As `torch.compile` does, this asks for the C compiler of the machine, once, for a second or two: the library is kept in the
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
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from platformdirs import user_cache_dir

HEADERS, SOURCES = (
    [Path(__file__).with_name(name) for name in names]
    for names in (("common.h", "tiles.h"), ("conv.c", "winograd.c", "norm.c"))
)
CONV, CONV_GRADIENT = "jaxdiff_conv", "jaxdiff_conv_gradient"
NORM, NORM_GRADIENT = "jaxdiff_group_norm", "jaxdiff_group_norm_gradient"
_PATIENCE = 120  # seconds for the compiler, which takes two


@functools.cache
def available() -> bool:
    """Whether the library is there, built and known to XLA: tried at the first call.

    It is kept in a folder that nobody else may write, and built into a temporary one where the
    user's cache folder is not such. A compiler that fails is a warning; none at all is not.
    """
    if os.environ.get("JAXDIFF_NATIVE") == "0":
        return False
    try:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(user_cache_dir("jaxdiff")) / "native"
            library = ctypes.CDLL(str(build(folder if _private(folder) else Path(temporary))))
        for name in (CONV, CONV_GRADIENT, NORM, NORM_GRADIENT):
            handler = jax.ffi.pycapsule(getattr(library, name))
            jax.ffi.register_ffi_target(name, handler, platform="cpu")
    except FileNotFoundError:
        return False
    except OSError as e:
        warnings.warn(f"XLA's own convolutions are used, which are slower: {e}", stacklevel=2)
        return False
    return True


def build(folder: Path) -> Path:
    """The compiled library in `folder`, whose name says of what and for what it was built.

    The name also has a digest of its content: one that is empty, cut short, changed or another
    user's is never opened, and built again.

    Raises:
        OSError: where no compiler is found (FileNotFoundError), or it fails or does not end.
    """
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if compiler is None:
        raise FileNotFoundError("no C compiler: install gcc or clang")
    flags = ["-O3", "-march=native", "-std=gnu11", "-shared", "-fPIC"]
    described = _run([compiler, *flags, "-dM", "-E", "-"])  # the processor's features too
    texts = [path.read_bytes() for path in (*HEADERS, *SOURCES)]
    stem = f"native-{_digest(*texts, described, jax.__version__.encode(), *map(str.encode, flags))}"
    for path in folder.glob(f"{stem}-*.so"):
        if _unchanged(path):
            return path
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        built = Path(temporary) / "native.so"
        _run([compiler, *flags, f"-I{jax.ffi.include_dir()}", *SOURCES, "-o", built])
        path = folder / f"{stem}-{_digest(built.read_bytes())}.so"
        os.replace(built, path)
    return path


def _run(command) -> bytes:
    """What a command of the compiler prints; an OSError with its words where it fails."""
    try:
        done = subprocess.run(command, input=b"", capture_output=True, timeout=_PATIENCE)
    except subprocess.TimeoutExpired as e:
        raise TimeoutError(f"{command[0]}: not done after {_PATIENCE} seconds") from e
    if done.returncode:
        raise OSError(f"{command[0]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _digest(*contents: bytes) -> str:
    return hashlib.sha256(b"|".join(contents)).hexdigest()[:16]


def _private(path: Path) -> bool:
    """Whether nobody else can write it; or it does not exist yet."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return True
    if os.name != "posix":  # where a user's cache folder is the user's own
        return True
    return found.st_uid == os.getuid() and not found.st_mode & 0o022


def _unchanged(path: Path) -> bool:
    if path.is_symlink() or not path.is_file() or not _private(path):
        return False
    return path.stem.endswith(_digest(path.read_bytes()))


def _of_images(images: int, weights: int) -> Callable:
    """Of a function of arrays [n, ...], of weights, and of numbers: under `vmap` as of more images.

    Where weights are mapped too, one after the other.
    """

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def call(*args):
            arrays, static = args[: images + weights], args[images + weights :]

            @jax.custom_batching.custom_vmap
            def run(*arrays):
                return function(*arrays, *static)

            @run.def_vmap
            def mapped(size, are_mapped, *arrays):
                if list(are_mapped) != [True] * images + [False] * weights:
                    each = [
                        a if m else jnp.broadcast_to(a, (size, *a.shape))
                        for a, m in zip(arrays, are_mapped)
                    ]
                    results = jax.lax.map(lambda one: run(*one), each)
                else:
                    merged = (a.reshape(-1, *a.shape[2:]) for a in arrays[:images])
                    found = run(*merged, *arrays[images:])
                    results = jax.tree.map(lambda a: a.reshape(size, -1, *a.shape[1:]), found)
                return results, jax.tree.map(lambda _: True, results)

            return run(*arrays)

        return call

    return decorate


@_of_images(1, 2)
def convolve(x, kernel, bias, stride, padding) -> Any:
    """x [n, H, W, I] with kernel [h, w, I, O], plus bias [O]; float32."""
    sizes = (
        (size + sum(pad) - taps) // stride + 1
        for size, pad, taps in zip(x.shape[1:3], padding, kernel.shape)
    )
    shape = (x.shape[0], *sizes, kernel.shape[3])
    if 0 in (*shape, x.size, kernel.size):  # nothing to sum
        return jnp.broadcast_to(bias, shape)
    return _call(CONV, shape)(x, kernel, bias, geometry=_geometry(stride, padding))


def convolve_gradient(x, g, shape, stride, padding) -> list[jax.Array]:
    """The gradients of `convolve` to its kernel [h, w, I, O] and bias, from that of its output."""
    if 0 in (x.size, g.size):
        return [jnp.zeros(shape, g.dtype), jnp.sum(g, (0, 1, 2))]
    return _call(CONV_GRADIENT, shape, shape[3:])(x, g, geometry=_geometry(stride, padding))


@_of_images(1, 2)
def group_norm(x, scale, bias, groups, eps, silu) -> list[jax.Array]:
    """x [n, m, C] normalised, SiLU of it if asked; and [n, groups, 2], the mean and 1/std."""
    call = _call(NORM, x.shape, (x.shape[0], groups, 2))
    return call(x, scale, bias, settings=np.array([groups, eps, silu], np.float32))


@_of_images(3, 2)
def group_norm_gradient(x, stats, dy, scale, bias, groups, eps, silu) -> list[jax.Array]:
    """The gradients to x, and to scale and bias [n, C] of each image, from that of the output."""
    each = (x.shape[0], x.shape[2])
    call = _call(NORM_GRADIENT, x.shape, each, each)
    settings = np.array([groups, eps, silu], np.float32)
    return call(x, scale, bias, stats, dy, settings=settings)


def _geometry(stride, padding):
    return np.array([stride, padding[0][0], *padding[1]], np.int64)


def _call(name, *shapes) -> Any:
    results = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
    result = results if len(results) > 1 else results[0]
    return jax.ffi.ffi_call(name, result, vmap_method="sequential")
