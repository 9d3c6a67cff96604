"""The hub, a stand-in for it, and its cache: no answer is no absence."""

import time
from unittest import mock

import pytest
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

import jaxdiff as jd
from jaxdiff.checkpoints import sources


class Hub:
    """huggingface_hub's answers, by the file's name; what is not here does not exist."""

    def __init__(self, folder, monkeypatch, **failures):
        self.folder, self.failures, self.asked = folder, failures, []
        monkeypatch.setattr(sources, "hf_hub_download", self)

    def __call__(self, repo, name, **options):
        self.asked.append(name)
        for part, error in self.failures.items():
            if part in name:
                raise error
        if not (self.folder / name).is_file():
            raise EntryNotFoundError(name)
        return str(self.folder / name)


def unanswered():
    error = LocalEntryNotFoundError("an error happened while trying to locate the file")
    error.__cause__ = TimeoutError("503 Service Unavailable")
    return error


@pytest.mark.parametrize("name", ["scheduler", "index", "safetensors", "spectral"])
def test_no_answer_is_no_absence(name, folder, monkeypatch):
    hub = Hub(folder, monkeypatch, **{name: unanswered()})
    monkeypatch.setattr(sources, "_cached", lambda source: True)
    monkeypatch.setattr(sources.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(sources, "_answers", lambda source: True)
    with pytest.raises(OSError, match=r"me/x: the hub does not say .* \(503 Service Unavailable\)"):
        jd.SpectralCovariance.load("me/x") if name == "spectral" else jd.load("me/x")
    assert sum(name in asked for asked in hub.asked) == 1


@pytest.mark.parametrize(
    "error", [ConnectionError("cut"), RuntimeError("peer closed"), OSError("no space")]
)
def test_a_download_that_fails(error, folder, monkeypatch):
    Hub(folder, monkeypatch, scheduler=error)
    with pytest.raises(OSError, match=r"me/x: scheduler/scheduler_config\.json could not be downl"):
        jd.load("me/x")


def test_an_absence_that_the_cache_knows(folder, monkeypatch):
    """Without a connection, from what was asked before: a table that is not there stays so."""
    hub = Hub(folder, monkeypatch, unet=unanswered(), scheduler=unanswered())
    monkeypatch.setattr(sources.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(sources, "_answers", lambda source: False)
    known = mock.Mock(return_value=sources._CACHED_NO_EXIST)
    monkeypatch.setattr(sources, "try_to_load_from_cache", known)
    with pytest.warns(UserWarning, match="DDPM defaults"):
        jd.load("me/x")
    assert "scheduler_config.json" in hub.asked


def test_no_connection_is_said_at_once(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    started = time.perf_counter()
    with pytest.raises(FileNotFoundError, match="could not be reached"):
        jd.load("nobody/nothing")
    assert time.perf_counter() - started < 5
