"""Small valid files of every kind."""

import io
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import scipy.io
from PIL import Image, ImageCms, features


class Seed(NamedTuple):
    """The files of a folder, which of them is changed, and who reads it."""

    name: str
    reader: str
    target: str
    files: dict[str, bytes]


def seeds(folder: Path) -> list[Seed]:
    """All of them; `folder` is for libraries that write nowhere but on disk."""
    parts = (
        _images(),
        _kernels(folder),
        _sets(),
        _checkpoints(folder),
        _priors(folder),
        _pickles(),
    )
    return [seed for part in parts for seed in part]


def _one(name: str, reader: str, target: str, content: bytes) -> Seed:
    return Seed(name, reader, target, {target: content})


def _pictures(size=(20, 24)) -> dict[str, Image.Image]:
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8))
    return {mode: rgb.convert(mode) for mode in ("RGB", "L", "1", "P", "RGBA", "CMYK", "YCbCr")}


def _saved(image: Image.Image, kind: str, **options) -> bytes:
    written = io.BytesIO()
    image.save(written, kind, **options)
    return written.getvalue()


def _images() -> Iterator[Seed]:
    pictures = _pictures()
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray(np.arange(480, dtype=np.uint16).reshape(20, 24))
    real = Image.fromarray(np.linspace(0, 1, 480, dtype=np.float32).reshape(20, 24))
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = ImageCms.profileToProfile(pictures["RGB"], *profiles, outputMode="LAB")
    kinds = {
        "a.png": [("RGB", {}), ("P", {}), ("1", {}), ("L", {"exif": exif}), ("RGBA", {})],
        "a.jpg": [("RGB", {"exif": exif}), ("L", {"progressive": True}), ("CMYK", {})],
        "a.tif": [("RGB", {}), ("YCbCr", {}), ("L", {"compression": "tiff_lzw"}), ("1", {})],
        "a.webp": [("RGB", {"lossless": True}), ("RGB", {"quality": 50, "exif": exif})],
        "a.bmp": [("RGB", {}), ("P", {}), ("1", {})],
        "a.gif": [("P", {}), ("P", {"save_all": True, "append_images": [pictures["P"]]})],
        "a.ppm": [("RGB", {}), ("L", {}), ("1", {})],
        "a.avif": [("RGB", {})],
    }
    names = {"jpg": "JPEG", "tif": "TIFF"}
    for target, variants in kinds.items():
        suffix = target.split(".")[1]
        if suffix == "avif" and not features.check("avif"):
            continue
        for mode, options in variants:
            kind = names.get(suffix, suffix.upper())
            content = _saved(pictures[mode], kind, **options)
            yield _one(f"{suffix}-{mode}", "image", target, content)
    for name, image in {"16": deep, "float": real, "lab": lab}.items():
        yield _one(f"tif-{name}", "image", "a.tif", _saved(image, "TIFF"))
    yield _one("png-16", "image", "a.png", _saved(deep, "PNG"))


def _kernels(folder: Path) -> Iterator[Seed]:
    kernel = np.outer([1, 2, 3, 2, 1], [1, 2, 1]) / 36
    cells = np.empty((1, 2), object)
    cells[0, 0], cells[0, 1] = kernel, kernel.T.astype(np.float32)
    variables = {"kernels": cells, "info": {"author": "nobody", "year": 2024}}
    for name, packed in (("mat5", False), ("mat5-z", True)):
        written = io.BytesIO()
        scipy.io.savemat(written, variables, do_compression=packed)
        yield _one(name, "kernel", "k.mat", written.getvalue())
        written = io.BytesIO()
        scipy.io.savemat(written, {"k": np.stack([kernel] * 3, -1)}, do_compression=packed)
        yield _one(f"{name}-3d", "kernel", "k.mat", written.getvalue())
    for name, options in (("mat73", {}), ("mat73-z", {"chunks": True, "compression": "gzip"})):
        path = folder / "k.mat"
        with h5py.File(path, "w") as file:
            held = [file.create_dataset(f"#refs#/{i}", data=kernel.T, **options) for i in "ab"]
            refs = [[item.ref] for item in held]
            file.create_dataset("kernels", data=np.array(refs, h5py.ref_dtype))
            file.create_group("options").create_dataset("sigma", data=[[0.1]])
        yield _one(name, "kernel", "k.mat", path.read_bytes())
    for name, array in (("npy", kernel), ("npy-u1", (kernel * 36).astype(np.uint8))):
        written = io.BytesIO()
        np.save(written, array)
        yield _one(name, "kernel", "k.npy", written.getvalue())
    picture = Image.fromarray((kernel * 36 * 50).astype(np.uint8))
    yield _one("kernel-png", "kernel", "k.png", _saved(picture, "PNG"))


def _sets() -> Iterator[Seed]:
    files = [_saved(picture, "JPEG") for picture in [_pictures()["RGB"]] * 4]
    offsets = np.cumsum([0, *map(len, files)])
    arrays = {"train_bytes": np.frombuffer(b"".join(files), np.uint8), "train_offsets": offsets}
    for name, save in (("npz", np.savez), ("npz-z", np.savez_compressed)):
        written = io.BytesIO()
        save(written, allow_pickle=False, **arrays)
        yield _one(name, "packed", "images.npz", written.getvalue())
        yield _one(f"{name}-train", "training", "images.npz", written.getvalue())
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        return
    cells = [{"bytes": content, "path": f"{i}.jpg"} for i, content in enumerate(files)]
    for name, column in (("parquet", cells), ("parquet-flat", files)):
        written = io.BytesIO()
        parquet.write_table(pyarrow.table({"image": column, "label": [1, 2, 3, 4]}), written)
        yield _one(name, "training", "train.parquet", written.getvalue())


def _checkpoints(folder: Path) -> Iterator[Seed]:
    import jax
    import torch
    from flax import nnx
    from safetensors.numpy import load_file

    import jaxdiff as jd
    from jaxdiff.nn.unet import abstract_unet

    config = jd.UNet2DConfig(
        sample_size=8,
        block_out_channels=(4,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        mid_block_type=None,
        layers_per_block=1,
        norm_num_groups=2,
    )
    graph, shapes = nnx.split(abstract_unet(config))
    weights = jax.tree.map(lambda w: np.full(w.shape, 0.1, np.float32), shapes)
    checkpoint = folder / "checkpoint"
    jd.save(checkpoint, nnx.merge(graph, weights), jd.Schedule.from_config())
    stem = "diffusion_pytorch_model"
    whole = f"{stem}.safetensors"
    files = {p.name: p.read_bytes() for p in checkpoint.iterdir() if p.is_file()}
    for target in (whole, "config.json", "scheduler_config.json"):
        yield Seed(target, "checkpoint", target, files)
    rest = {name: content for name, content in files.items() if name != whole}
    tensors = load_file(checkpoint / whole)
    index = {
        "metadata": {"total_size": 1},
        "weight_map": dict.fromkeys(tensors, "shard.safetensors"),
    }
    listed = json.dumps(index).encode()
    target = f"{whole}.index.json"
    shards = rest | {"shard.safetensors": files[whole], target: listed}
    yield Seed("index", "checkpoint", target, shards)
    for name, new in (("torch-zip", True), ("torch-legacy", False)):
        written = io.BytesIO()
        state = {key: torch.from_numpy(value) for key, value in tensors.items()}
        torch.save(state, written, _use_new_zipfile_serialization=new)
        target = f"{stem}.bin"
        yield Seed(name, "checkpoint", target, rest | {target: written.getvalue()})
    table = jd.SpectralCovariance(
        np.ones((3, 5, 1, 1), np.float32) * np.eye(1, dtype=np.float32),
        np.array([0, 500, 999]),
        jd.Schedule.from_config().alphas_cumprod[[0, 500, 999]],
        np.float64(0.125),
    )
    written = table.save(folder / "table")
    yield Seed("table", "table", written.name, {written.name: written.read_bytes()})


def _priors(folder: Path) -> Iterator[Seed]:
    """guided-diffusion's tensors in both containers, EDM's pickle, and other schedulers' configs."""
    import torch

    from tests.checkpoints.published import ADM_FIELDS, write

    for kind in ("adm", "edm", "ncsn++", "consistency", "flow", "latent"):
        (folder / kind).mkdir()
        write(kind, folder / kind)
    config = {"config.json": json.dumps(ADM_FIELDS).encode()}
    zipped = (folder / "adm/a.pt").read_bytes()
    written = io.BytesIO()
    state = torch.load(folder / "adm/a.pt", weights_only=True)
    torch.save(state, written, _use_new_zipfile_serialization=False)
    for name, content in (("adm-zip", zipped), ("adm-legacy", written.getvalue())):
        yield Seed(name, "prior", "a.pt", config | {"a.pt": content})
    yield Seed("adm-config", "prior", "config.json", config | {"a.pt": zipped})
    yield _one("edm", "prior", "a.pkl", (folder / "edm/a.pkl").read_bytes())
    for kind in ("ncsn++", "consistency", "flow"):
        yield _one(
            f"scheduler-{kind}",
            "scheduler",
            "scheduler_config.json",
            (folder / kind / "scheduler/scheduler_config.json").read_bytes(),
        )
    yield _one("vq", "vq", "config.json", (folder / "latent/vqvae/config.json").read_bytes())


class _Call:
    def __init__(self, function, *arguments):
        self.called = function, arguments

    def __reduce__(self):
        return self.called


def _pickles() -> Iterator[Seed]:
    """Such as would run something, were they unpickled; `id` harms nobody."""
    import os

    evil = pickle.dumps(_Call(os.system, "id > /dev/null"), 2)
    objects = np.array([_Call(os.system, "id > /dev/null")], object)
    written = io.BytesIO()
    np.save(written, objects, allow_pickle=True)
    yield _one("evil-npy", "kernel", "k.npy", written.getvalue())
    yield _one("evil-pickle-npy", "kernel", "k.npy", evil)
    written = io.BytesIO()
    np.savez(written, train_bytes=objects, train_offsets=np.arange(2))
    yield _one("evil-npz", "packed", "images.npz", written.getvalue())
    yield _one(
        "evil-postscript", "image", "a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    )
    yield _one("evil-pt", "prior", "a.pt", evil)
    yield _one("evil-edm", "prior", "a.pkl", evil[:2] + b"ema_reconstruct_persistent_obj" + evil)
    written = {"config.json": b"{}", "diffusion_pytorch_model.bin": evil}
    yield Seed("evil-bin", "checkpoint", "diffusion_pytorch_model.bin", written)
