"""What is called on each kind of file."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def _image(path: Path) -> Any:
    from jaxdiff import data

    return data.read_image(path, None)


def _kernel(path: Path) -> Any:
    from jaxdiff import data

    return data.load_kernel(str(path))


def _packed(path: Path) -> Any:
    from jaxdiff import data

    return data.load_images(path, (8, 8))


def _training(path: Path) -> Any:
    from jaxdiff.data.pixels import prepare

    with tempfile.TemporaryDirectory(dir=path.parent.parent) as out:
        source = path.parent if path.suffix == ".parquet" else path
        pixels = prepare(source, out, 8)
        return pixels.batch(0, 2, 0)


def _checkpoint(path: Path) -> Any:
    import jaxdiff as jd

    return jd.load(path.parent)


def _prior(path: Path) -> Any:
    import jaxdiff as jd

    files = {p.suffix: p for p in path.parent.iterdir()}
    return jd.prior(files.get(".pt") or files[".pkl"], config=files.get(".json"))


def _scheduler(path: Path) -> Any:
    import jaxdiff as jd
    from jaxdiff.util.files import read_json

    try:
        return jd.Schedule.from_config(read_json(path)).steps(4)
    except (ValueError, TypeError) as e:
        raise ValueError(f"{path}: {e}") from e


def _vq(path: Path) -> Any:
    from jaxdiff.nn.vq import VQConfig
    from jaxdiff.util.files import read_json

    try:
        return VQConfig.from_dict(read_json(path))
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from e


def _table(path: Path) -> Any:
    import jaxdiff as jd

    return jd.SpectralCovariance.load(path.parent)


READERS: dict[str, Callable[[Path], Any]] = {
    "image": _image,
    "kernel": _kernel,
    "packed": _packed,
    "training": _training,
    "checkpoint": _checkpoint,
    "table": _table,
    "prior": _prior,
    "scheduler": _scheduler,
    "vq": _vq,
}
