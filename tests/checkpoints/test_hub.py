"""The hub, a stand-in for it, and its cache: no answer is no absence."""

import time
from unittest import mock

import pytest
from huggingface_hub.errors import (
    EntryNotFoundError,
    LocalEntryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import filter_repo_objects

import jaxdiff as jd
from jaxdiff.checkpoints import hub, sources


class Hub:
    """huggingface_hub's answers, by the file's name; what is not here does not exist."""

    def __init__(self, folder, monkeypatch, **failures):
        self.folder, self.failures, self.asked = folder, failures, []
        monkeypatch.setattr(sources, "hf_hub_download", self)

    def __call__(self, repo, name, **options):
        self.asked.append(name)
        self.options = options
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
    monkeypatch.setattr(sources, "_cached", lambda *asked: True)
    monkeypatch.setattr(sources.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(sources, "_answers", lambda *asked: True)
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
    monkeypatch.setattr(sources, "_answers", lambda *asked: False)
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


def test_a_revision_and_a_token_reach_the_hub(folder, monkeypatch):
    asked = Hub(folder, monkeypatch)
    monkeypatch.setattr(sources, "_answers", lambda *asked: True)
    jd.load("me/x", revision="v1", token="hf_secret")
    assert asked.options == {"revision": "v1", "token": "hf_secret"}


def test_a_revision_that_is_not_there(folder, monkeypatch):
    error = RevisionNotFoundError("404", response=mock.Mock(headers={}))
    Hub(folder, monkeypatch, config=error)
    with pytest.raises(FileNotFoundError, match="me/x: the hub has no revision 'v9'"):
        jd.load("me/x", revision="v9")
    with pytest.raises(ValueError, match=r"revision: .* is a folder here"):
        jd.load(str(folder), revision="v9")


def test_push(folder, tmp_path, monkeypatch):
    """What is uploaded is a checkpoint's own files, and loads; nothing else of the folder goes."""
    for name in (".lock", "notes.txt", "README.md", "run/secret.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    monkeypatch.setattr(hub, "HfApi", lambda token: api)
    api = mock.Mock()
    api.upload_folder.return_value.commit_url = "https://hub/me/x/commit/1"
    assert jd.push(folder, "me/x", private=True, revision="v1") == "https://hub/me/x/commit/1"
    api.create_repo.assert_called_once_with("me/x", private=True, exist_ok=True)
    sent = api.upload_folder.call_args.kwargs
    assert (sent["repo_id"], sent["revision"]) == ("me/x", "v1")
    names = [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()]
    gone = set(filter_repo_objects(names, allow_patterns=sent["allow_patterns"]))
    assert set(names) - gone == {".lock", "notes.txt", "run/secret.json"}
    for name in gone:
        (tmp_path / "there" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "there" / name).write_bytes((folder / name).read_bytes())
    jd.load(tmp_path / "there")


@pytest.mark.parametrize(
    ("repo", "error", "message"),
    [
        ("x", ValueError, "repo: expected the hub's OWNER/NAME, got 'x'"),
        ("me/x/y", ValueError, "repo: expected"),
        ("me/x", OSError, "me/x: not uploaded .*offline mode"),
    ],
)
def test_push_that_cannot_be(repo, error, message, folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(error, match=message):
        jd.push(folder, repo)


def test_push_of_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint: neither config\.json"):
        jd.push(tmp_path, "me/x")
