"""Files that belong together, with a process killed at every one of its steps."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jaxdiff.util.locks import LOCK, sole_writer
from jaxdiff.util.together import is_free, settle, write_together

# Kills itself at its nth call that changes a folder.
SCRIPT = """
import os, signal, sys
from pathlib import Path
from jaxdiff.util.together import write_together
folder, new, when = sys.argv[1:]
left = int(when)
def deadly(real):
    def call(*args, **kwargs):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return call
for name in ("rename", "replace", "unlink", "mkdir", "rmdir"):
    setattr(os, name, deadly(getattr(os, name)))
def content(name):
    return lambda path: path.write_text(f"{name} {new}")
names = ("weights", "config", "scheduler")
write_together(Path(folder), {n: content(n) for n in names}, key="config")
"""


def run(folder: Path, new: str, when: int) -> bool:
    """Whether it was killed."""
    command = [sys.executable, "-c", SCRIPT, str(folder), new, str(when)]
    code = subprocess.run(command, capture_output=True).returncode
    assert code in (0, -signal.SIGKILL)
    return code != 0


def contents(folder: Path) -> dict[str, str]:
    return {p.name: p.read_text() for p in folder.iterdir() if p.is_file() and p.name != LOCK}


def of(new: str) -> dict[str, str]:
    return {name: f"{name} {new}" for name in ("weights", "config", "scheduler")}


def test_a_kill_at_every_step(tmp_path):
    kills = 0
    for when in range(30):
        folder = tmp_path / str(when)
        folder.mkdir()
        (folder / "notes").write_text("mine")
        write_together(
            folder, {n: lambda p, n=n: p.write_text(f"{n} old") for n in of("")}, "config"
        )
        killed = run(folder, "new", when)
        found = contents(folder)
        # Who knows nothing of this finds the key beside its own, or no key.
        assert "config" not in found or found in ({"notes": "mine"} | of(v) for v in ("old", "new"))
        settle(folder, "config")
        assert contents(folder) in ({"notes": "mine"} | of(v) for v in ("old", "new"))
        assert not run(folder, "newer", 99)
        assert contents(folder) == {"notes": "mine"} | of("newer")
        assert len(list(folder.iterdir())) == 4  # no temporaries
        kills += killed
        if not killed:
            break
    assert kills >= 6 and not killed


def test_a_failure_leaves_what_was_there(tmp_path):
    def full(path):
        path.write_text("half")
        raise OSError("disk full")

    (tmp_path / "config").write_text("old")
    with pytest.raises(OSError, match="disk full"):
        write_together(
            tmp_path, {"config": lambda p: p.write_text("new"), "weights": full}, "config"
        )
    assert contents(tmp_path) == {"config": "old"} and len(os.listdir(tmp_path)) == 1


def test_is_free(tmp_path):
    assert is_free(tmp_path) and is_free(tmp_path / "absent")
    (tmp_path / ".DS_Store").touch()
    (tmp_path / ".jaxdiff-staged").mkdir()
    assert is_free(tmp_path)
    (tmp_path / "notes").touch()
    assert not is_free(tmp_path)


def test_others_may_read_what_the_user_lets_them(tmp_path):
    """As any new file: whatever the mode in which a writer made it."""

    def write(path):
        path.touch(mode=0o600)

    (tmp_path / "usual").touch()
    write_together(tmp_path, {"key": write}, key="key")
    assert (tmp_path / "key").stat().st_mode == (tmp_path / "usual").stat().st_mode


def _hold(folder, holding, done):
    with sole_writer(folder):
        holding.set()
        done.wait(60)


def test_one_writer_at_a_time(tmp_path):
    """What another process is writing to is refused before anything is changed."""
    context = multiprocessing.get_context("spawn")
    holding, done = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path / "new", holding, done))
    process.start()
    assert holding.wait(60)
    for write in (
        lambda: write_together(tmp_path / "new", {}, "key"),
        lambda: _hold(tmp_path / "new", None, None),
    ):
        with pytest.raises(ValueError, match="new: another jaxdiff is writing"):
            write()
    done.set()
    process.join(60)
    assert not (tmp_path / "new").exists()  # nothing came of it
    with sole_writer(tmp_path / "new"):  # its own files it may write
        write_together(tmp_path / "new", {"key": lambda path: path.touch()}, key="key")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["key"]
