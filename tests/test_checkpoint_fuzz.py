"""Mutated files of checkpoints: each is read, or refused in a line. JAXDIFF_FUZZ sets how many of a kind."""

import io
import json
import os
import time
import warnings

import numpy as np
import pytest
import torch
from safetensors.numpy import save

import jaxdiff as jd
from jaxdiff.checkpoints.diffusers import _find_files, _read, _schedule
from jaxdiff.checkpoints.weights import open_file, open_weights

COUNT = int(os.environ.get("JAXDIFF_FUZZ", "150"))
TENSORS = {f"block.{i}.weight": np.full((3, 4), i, "f") for i in range(5)}
EXTREME = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """One to four changes: bits, bytes, integers of extreme values, parts that go, come twice, or move."""
    content = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        at, other = sorted(rng.integers(0, max(len(content), 1), 2))
        match rng.integers(0, 7):
            case 0:
                content[at : at + 1] = bytes(
                    [(content[at] if content else 0) ^ 1 << rng.integers(8)]
                )
            case 1:
                content[at : at + 1] = rng.bytes(1)
            case 2:
                width = int(rng.choice([1, 2, 4, 8]))
                value = EXTREME[rng.integers(len(EXTREME))] % 256**width
                content[at : at + width] = value.to_bytes(width, "little")
            case 3:
                del content[at : min(other, at + 40)]
            case 4:
                content[at:at] = content[at : min(other, at + 40)]
            case 5:
                del content[at:]
            case 6:
                end = int(rng.integers(0, len(content) + 1))
                content[end:end] = content[at : min(other, at + 40)]
    return bytes(content)


def mutated_json(value, rng: np.random.Generator):
    """A field of another type or size."""
    strange = [
        None,
        True,
        -1,
        0,
        10**9,
        10**400,
        0.5,
        float("nan"),
        float("inf"),
        "",
        "false",
        [],
        {},
    ]
    strange += [[1] * 5, ["a"], {"a": 1}, [[]], "x" * 1000]
    content = dict(value)
    for _ in range(rng.integers(1, 4)):
        name = str(rng.choice(list(content)))
        content[name] = strange[rng.integers(len(strange))]
    return content


def bin_file(archive: bool) -> bytes:
    buffer = io.BytesIO()
    state = {name: torch.tensor(value) for name, value in TENSORS.items()}
    torch.save(state, buffer, _use_new_zipfile_serialization=archive)
    return buffer.getvalue()


BINARY = {
    "zip.bin": bin_file(True),
    "legacy.bin": bin_file(False),
    "a.safetensors": save(TENSORS),
}


@pytest.mark.parametrize("name", BINARY)
def test_weights(name, tmp_path):
    path, read = tmp_path / name, 0
    for seed in range(COUNT):
        path.write_bytes(mutated(BINARY[name], np.random.default_rng(seed)))
        started = time.perf_counter()
        try:
            for tensor in open_file(path).values():
                assert tensor.read().shape == tensor.shape
            read += 1
        except ValueError as error:
            message = str(error)
            assert message.startswith(str(path)) and len(message) < 500 + len(str(path)), seed
        assert time.perf_counter() - started < 5, seed
    assert 0 < read < COUNT


@pytest.mark.parametrize("name", ["config.json", "scheduler_config.json", "index"])
def test_configs(name, tmp_path):
    """By fields and by bytes; a config that is taken makes a network's shapes in little time."""
    config = jd.UNet2DConfig(block_out_channels=(8,), norm_num_groups=4, down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), attention_head_dim=4)  # fmt: skip
    good = {
        "config.json": config.to_dict(),
        "scheduler_config.json": jd.Schedule.from_config().to_config(),
        "index": {"metadata": {}, "weight_map": dict.fromkeys(TENSORS, "a.safetensors")},
    }[name]
    stem = "diffusion_pytorch_model.safetensors.index.json"
    path, taken = tmp_path / (stem if name == "index" else name), 0
    (tmp_path / "a.safetensors").write_bytes(save(TENSORS))
    (tmp_path / "config.json").write_text("{}")
    read = {
        "config.json": lambda: _read(path, jd.UNet2DConfig.from_dict),
        "scheduler_config.json": lambda: _read(path, _schedule).steps(1),
        "index": lambda: open_weights(tmp_path, _find_files(tmp_path).find, ""),
    }[name]
    for seed in range(COUNT):
        rng = np.random.default_rng(seed)
        if seed % 2:
            path.write_text(json.dumps(mutated_json(good, rng)))
        else:
            path.write_bytes(mutated(json.dumps(good).encode(), rng))
        started = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                read()
            taken += 1
        except (ValueError, FileNotFoundError) as error:
            message = str(error)
            assert str(path) in message and len(message) < 700 + len(str(path)), (seed, message)
        assert time.perf_counter() - started < 5, seed
    assert 0 < taken < COUNT
