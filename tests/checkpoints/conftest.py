"""A checkpoint to spoil, and what is expected of one that is spoilt."""

import json
import shutil
import warnings
from pathlib import Path

import pytest

import jaxdiff as jd

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tiny, tmp_path):
    """A checkpoint of one's own, to spoil."""
    return Path(shutil.copytree(tiny, tmp_path / "mine"))


def edit(path: Path, **changes):
    path.write_text(
        json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8"
    )


def refused(folder: Path, match: str):
    """Loading ends in one short line, which names the folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises((ValueError, OSError), match=match) as error:
            jd.load(folder)
    message = str(error.value)
    assert "\n" not in message and len(message) < 700 + len(str(folder)) and "mine" in message
