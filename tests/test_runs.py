"""Folders of results: whose they are, what they are of, and the names in them."""

import errno
import json
import multiprocessing
from pathlib import Path, PurePath

import pytest

from jaxdiff.util import fingerprint
from jaxdiff.util.files import (
    finite,
    publish,
    read_csv,
    read_json,
    replace_file,
    temporary_folder,
    write_csv,
    write_json,
)
from jaxdiff.util.names import folder_names, printable
from jaxdiff.util.runs import SETTINGS, Run

NASTY = [
    "...png", "..png", "....png", " .png", "con.png", "NUL.tar.png", "a.png", "a.jpg", "a.png.png",
    "A.png", "metrics.json.png", "metrics.json.jpg", "metrics.json/x.png", "settings.json.png",
    "-rf.png", "photo [final].png", "x[/y].png", 'quo"te.png', "new\nline.png", "caf\udce9.png",
    "caf\u00e9.png", "cafe\u0301.png", "sub.png", "sub/a.png", "sub/b/c.png", "sub/b.png", "x. .png",
    "y" * 250 + ".png", "\u00e9" * 120 + ".png", "draw-1.png",
]  # fmt: skip


def test_names_of_folders():
    """No two alike on any file system, none elsewhere, none within another, none of ours."""
    paths = [PurePath(name) for name in NASTY]
    names = folder_names(paths, reserved=("metrics.json", SETTINGS))
    root = Path("/root/out")
    for path, name in zip(paths, names):
        name.encode()
        assert root in (root / name).resolve().parents, path
        assert len(PurePath(name).parts) == len(path.parts)
        assert all(0 < len(part.encode()) < 256 for part in PurePath(name).parts)
        assert not any(
            part.startswith(".") or part.endswith((" ", ".")) for part in name.split("/")
        )
    folded = [name.casefold() for name in names]
    assert len(set(folded)) == len(names)
    assert not {"metrics.json", SETTINGS, ".lock"} & {name.split("/")[0] for name in folded}
    for name in folded:
        assert not any(other.startswith(name + "/") for other in folded)
    assert names == folder_names(paths, reserved=("metrics.json", SETTINGS))


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["a.png", "b.png"], ["a", "b"]),
        (["a.jpg", "a.png", "a.png.png"], ["a.jpg", "a.png", "a.png.png"]),
        (["x/a.png", "y/a.png", "a.png"], ["x/a", "y/a", "a"]),
        (["a.png", "a/b.png"], ["a.png", "a/b"]),
    ],
)
def test_plain_names_stay(paths, expected):
    assert folder_names([PurePath(p) for p in paths]) == expected


@pytest.mark.parametrize(
    "name", ["plain [x].png", "caf\udce9\r.png", "→ \x1b[31m.png", "\u202e.png"]
)
def test_names_as_text(name, tmp_path):
    text = printable(name)
    assert text.encode().decode() == text and text.isprintable()
    write_csv(tmp_path / "a.csv", [{"image": text, "steps": 3, "psnr": 1.5, "none": ""}])
    (row,) = read_csv(tmp_path / "a.csv", text=("image",), whole=("steps",))
    assert row == {"image": text, "steps": 3, "psnr": 1.5, "none": ""}


def test_json_has_no_number_that_json_lacks(tmp_path):
    content = {"a": float("nan"), "b": [float("inf"), 1.5], "c": {"d": (-float("inf"), "x")}}
    write_json(tmp_path / "a.json", content)
    text = (tmp_path / "a.json").read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert read_json(tmp_path / "a.json") == {"a": None, "b": [None, 1.5], "c": {"d": [None, "x"]}}
    assert finite({"a": 1, "b": "nan", "c": True}) == {"a": 1, "b": "nan", "c": True}


@pytest.mark.parametrize("content", ["{", "[" * 100_000, "[1]", '{"a": 1', "\udcff"])
def test_damaged_json_is_named(content, tmp_path):
    (tmp_path / "a.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=r"a\.json"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_failed_write_names_the_file_and_keeps_the_old_one(code, tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("old")

    def fill(temporary):
        Path(temporary).write_text("half", encoding="utf-8")
        raise OSError(code, "no")  # of a library: without a name

    with pytest.raises(OSError, match=r"results\.csv") as e:
        replace_file(path, fill)
    assert e.value.errno == code and e.value.filename == str(path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_who_finds_the_last_file_finds_all_of_one_writing(tmp_path, monkeypatch):
    """Killed at every moment: beside the last file there is nothing older than it."""
    folder = tmp_path / "model"
    names = ["a", "b", "last", "z"]

    def write(version):
        temporary = temporary_folder(tmp_path)
        for name in names:
            (temporary / name).write_text(version)
        publish(temporary, folder, "last")

    class Killed(BaseException):
        pass

    real = Path.replace
    for moment in range(4):
        write("old")
        count = iter(range(10))

        def deadly(path, target, count=count, moment=moment):
            if next(count) == moment:
                raise Killed
            return real(path, target)

        monkeypatch.setattr(Path, "replace", deadly)
        with pytest.raises(Killed):
            write("new")
        monkeypatch.undo()
        assert not (folder / "last").exists()
    write("new")
    assert {(folder / name).read_text() for name in names} == {"new"}


def test_fingerprints_of_files(tmp_path):
    path = tmp_path / "a"
    seen = set()
    for content in (b"", b"x" * 10, b"x" * 9 + b"y", b"x" * 11):
        path.write_bytes(content)
        seen.add(fingerprint.of_files([("a", path)]))
    seen |= {fingerprint.of_files([("b", path)]), fingerprint.of_files([("a", tmp_path / "none")])}
    assert len(seen) == 6
    path.write_bytes(b"x" * 10)
    begun = fingerprint.of_files([("a", path)], 4)
    path.write_bytes(b"x" * 9 + b"y")
    assert fingerprint.of_files([("a", path)], 4) == begun
    path.write_bytes(b"x" * 11)
    assert fingerprint.of_files([("a", path)], 4) != begun


def run_of(folder, **kwargs):
    return Run(folder, "test", lambda found: folder.glob("result*"), **kwargs)


def test_other_settings_are_refused_by_name(tmp_path):
    run = run_of(tmp_path / "out")
    with run.hold({"seed": 1, "weights": "a"}, {"model": "x"}):
        (run.folder / "result").write_text("1")
    for other, names in (
        ({"seed": 2, "weights": "a"}, "another seed:"),
        ({"seed": 1, "weights": "b"}, "another weights:"),
        ({"seed": 3, "weights": "b"}, "another seed, weights:"),
    ):
        with pytest.raises(ValueError, match=names + ".*--overwrite"), run.hold(other):
            pass
    assert (run.folder / "result").exists()
    with run.hold({"seed": 1, "weights": "a", "new": 2}, {"model": "y"}):
        assert (run.folder / "result").exists()
    assert run.settings() == {"kind": "test", "seed": 1, "weights": "a", "new": 2, "model": "y"}
    with run.hold({"seed": 2}, overwrite=True):
        assert not (run.folder / "result").exists()
        (run.folder / "result").write_text("2")
    assert run.settings() == {"kind": "test", "seed": 2}


def test_nothing_came_of_it(tmp_path):
    """A run that failed at once blocks nobody, and leaves a folder that it made."""
    for failing in (ValueError, KeyboardInterrupt, MemoryError):
        with pytest.raises(failing), run_of(tmp_path / "out").hold({"seed": 1}):
            raise failing
        assert not (tmp_path / "out").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/.DS_Store").touch()
    with pytest.raises(ValueError, match="no"), run_of(tmp_path / "mine").hold({"seed": 1}):
        raise ValueError("no")
    with run_of(tmp_path / "mine").hold({"seed": 2}):
        pass
    assert (tmp_path / "mine/.DS_Store").exists()


@pytest.mark.parametrize("name", ["notes.txt", "metrics.json", "a/b"])
def test_a_folder_of_other_things_is_left_alone(name, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match="holds other files than a test"):
        run_of(tmp_path).check()
    with pytest.raises(ValueError, match="other files"), run_of(tmp_path).hold({}, overwrite=True):
        pass
    assert (tmp_path / name).exists() and not (tmp_path / SETTINGS).exists()


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "desktop.ini", ".writing-abc", ".lock"])
def test_what_lies_everywhere_is_no_other_thing(name, tmp_path):
    (tmp_path / name).touch()
    run_of(tmp_path).check()
    with run_of(tmp_path).hold({"seed": 1}):
        (tmp_path / "result").touch()
    assert not (tmp_path / ".writing-abc").exists()


def test_settings_that_are_gone_or_damaged(tmp_path):
    (tmp_path / "result").touch()
    run = run_of(tmp_path, ours=("result",))
    with pytest.warns(UserWarning, match="is gone"), run.hold({"seed": 1}):
        pass
    (tmp_path / SETTINGS).write_text("{")
    with pytest.raises(ValueError, match=SETTINGS):
        run.check()
    (tmp_path / SETTINGS).write_text(json.dumps({"kind": "other"}))
    with pytest.raises(ValueError, match="another kind"):
        run.check()


def _hold(folder, holding, done):
    with run_of(folder).hold({"seed": 1}):
        (folder / "result").touch()
        holding.set()
        done.wait(60)


def test_one_writer_at_a_time(tmp_path):
    context = multiprocessing.get_context("spawn")
    holding, done = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path, holding, done))
    process.start()
    assert holding.wait(60)
    with pytest.raises(ValueError, match="another jaxdiff is writing"):
        with run_of(tmp_path).hold({"seed": 1}):
            pass
    done.set()
    process.join(60)
    with run_of(tmp_path).hold({"seed": 1}):
        pass
