"""Every format of a checkpoint, told apart by what a file holds and not by its name."""

import shutil
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxdiff.checkpoints.adm import from_adm, is_adm, scheduler_config
from jaxdiff.checkpoints.diffusers import (
    INDEX,
    SCHEDULER,
    Files,
    check_dtype,
    contents_of,
    find_files,
    read_network,
    unet_from_tensors,
    write_folder,
)
from jaxdiff.checkpoints.edm import is_edm, read_edm, song_from_tensors
from jaxdiff.checkpoints.names import unwrapped
from jaxdiff.checkpoints.vq import read_vq, vq_from_tensors
from jaxdiff.checkpoints.weights import open_file
from jaxdiff.nn.config import UNet2DConfig
from jaxdiff.nn.unet import UNet2D
from jaxdiff.nn.vq import VQModel
from jaxdiff.schedules import Schedule
from jaxdiff.util.files import read_json


class Checkpoint(NamedTuple):
    """What a prior is made of; `decoder` where its states are latents."""

    network: Any
    schedule: Schedule
    decoder: VQModel | None = None


def read(
    source: str | Path,
    config: Mapping[str, Any] | str | Path | None = None,
    dtype: Any = jnp.float32,
    revision: str | None = None,
    token: str | None = None,
) -> Checkpoint:
    """The network, the schedule and the decoder of a checkpoint of any format; see `jd.prior`.

    Raises:
        ValueError: in one line that names the file. FileNotFoundError: where there is none.
    """
    dtype = check_dtype(dtype)
    fields = read_json(Path(config)) if isinstance(config, str | Path) else config
    try:
        if Path(source).is_file():
            return _file(Path(source), fields or {}, dtype)
        return _folder(source, find_files(source, revision, token), fields, dtype)
    except ValueError as e:
        if str(source) in str(e):
            raise
        raise ValueError(f"{source}: {e}") from e


def convert(
    source: str | Path,
    folder: str | Path,
    *,
    config: Mapping[str, Any] | str | Path | None = None,
    dtype: Any = jnp.float32,
    keep: tuple[str, ...] = (),
) -> None:
    """Rewrite a checkpoint as a folder of diffusers, as `save` does.

    Of a folder, its scheduler's config and the files `keep` stay as they are.

    Raises:
        ValueError: for a network that diffusers has not, or a prior of latents, and what `read` and
            `save` raise.
    """
    network, schedule, decoder = read(source, config, dtype)
    if not isinstance(network, UNet2D):
        raise ValueError(f"{source}: a {type(network).__name__}, for which diffusers has no folder")
    if decoder is not None:
        raise ValueError(f"{source}: a prior of latents, which is a folder of diffusers already")
    contents = contents_of(network, schedule)
    if not Path(source).is_file():
        files = find_files(source)
        named = {SCHEDULER: files.scheduler, INDEX: files.index}
        for name, path in {**named, **{name: files.find(name) for name in keep}}.items():
            if path is not None:
                contents[name] = partial(shutil.copyfile, path)
    for name in keep:  # a table that is there is of the weights that go
        if name not in contents and (stale := Path(folder) / name).exists():
            aside = stale.replace(stale.with_name(f"{name}.before"))
            warnings.warn(f"{stale}: not of these weights, it is {aside.name} now", stacklevel=2)
    write_folder(folder, contents)


def _folder(
    source: str | Path, files: Files, config: Mapping[str, Any] | None, dtype
) -> Checkpoint:
    """A folder of diffusers, here or on the hub."""
    pair = read_network(source, files, dtype, config)
    if files.decoder is None:
        return Checkpoint(*pair)
    if files.decoder != "vqvae":
        raise ValueError(
            f"{source}: its latents are of a {files.decoder}: expected a vqvae (VQModel)"
        )
    decoder = vq_from_tensors(*read_vq(source, files.find), dtype)
    latents, channels = decoder.config.embed_dim, pair[0].config.in_channels
    if latents != channels:
        raise ValueError(
            f"{source}: its decoder takes latents of {latents} channels, its unet has {channels}"
        )
    return Checkpoint(*pair, decoder)


def _file(path: Path, config: Mapping[str, Any], dtype) -> Checkpoint:
    """One file: EDM's pickle, or the tensors of guided-diffusion's network or a UNet2DModel."""
    if is_edm(path):
        return _edm(path, config, dtype)
    tensors = unwrapped(open_file(path))
    if is_adm(tensors):
        unet, tensors = from_adm(tensors, config)
        schedule = Schedule.from_config(scheduler_config(unet, config))
        return Checkpoint(unet_from_tensors(unet, tensors, dtype), schedule)
    if not {"conv_in.weight", "conv_norm_out.weight"} <= tensors.keys():
        raise ValueError(
            "the tensors are of no network that is known here: expected guided-diffusion's, EDM's "
            "pickle, or a UNet2DModel's"
        )
    if "block_out_channels" not in config:
        raise ValueError(
            "the weights of a UNet2DModel, whose config they do not say: name its folder, or pass "
            "config= (--config), its config.json"
        )
    warnings.warn(f"{path}: no {SCHEDULER}, using the DDPM defaults", stacklevel=4)
    unet = UNet2DConfig.from_dict(config)
    return Checkpoint(unet_from_tensors(unet, tensors, dtype), Schedule.from_config())


def _edm(path: Path, config: Mapping[str, Any], dtype) -> Checkpoint:
    song, tensors, sigmas = read_edm(path)
    for name, value in config.items():
        found = getattr(song, name, None)
        if (tuple(value) if isinstance(value, list) else value) != found:
            raise ValueError(f"{name}: the config says {value}, EDM's pickle {found}")
    schedule = {
        "_class_name": "EDMEulerScheduler",
        "sigma_min": max(0.002, sigmas["sigma_min"]),  # as EDM's own sampler
        "sigma_max": min(80.0, sigmas["sigma_max"]),
        "sigma_data": sigmas["sigma_data"],
    }
    return Checkpoint(song_from_tensors(song, tensors, dtype), Schedule.from_config(schedule))
