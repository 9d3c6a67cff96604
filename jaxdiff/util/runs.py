"""A folder of results that the same command continues, and that no other one touches."""

import contextlib
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxdiff.util import hosts
from jaxdiff.util.files import read_json, remove_temporaries, write_json
from jaxdiff.util.locks import sole_writer

SETTINGS = "settings.json"
_NOT_OURS = {"thumbs.db", "desktop.ini"}  # nor a hidden file: what file managers leave everywhere
Settings = Mapping[str, Any]


class Run:
    """A folder of results of one kind and of one set of settings, written by one process at a time.

    `settings.json` says what the results are of. Whoever comes with the same settings goes on, with
    other ones is told which differ.

    Args:
        folder: that is, or may become, one.
        kind: such as "restoration", for messages.
        results: from the settings in the folder to the files of results that are there.
        ours: what may lie there though the settings are gone.
        replaceable: whether `--overwrite` removes the results.
    """

    def __init__(
        self,
        folder: Path,
        kind: str,
        results: Callable[[Settings], Iterable[Path]],
        ours: Iterable[str] = (),
        replaceable: bool = True,
    ) -> None:
        self.folder, self.kind, self._results, self._ours = folder, kind, results, set(ours)
        self._fix = "name another folder" + (", or pass --overwrite" if replaceable else "")

    def check(self) -> None:
        """Before any work, and without a trace.

        Raises:
            ValueError: where the folder is a file, or holds other things than such results.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"{self.folder} is a file: name a folder")
        if (self.folder / SETTINGS).exists():
            if (found := self.settings().get("kind", self.kind)) != self.kind:
                raise ValueError(
                    f"{self.folder}: holds results of another kind ({found}): name another folder"
                )
        elif self.folder.exists() and any(map(self._foreign, self.folder.iterdir())):
            raise ValueError(
                f"{self.folder}: holds other files than a {self.kind}: name another folder"
            )

    def _foreign(self, path: Path) -> bool:
        name = path.name
        return not (name.startswith(".") or name.lower() in _NOT_OURS or name in self._ours)

    def settings(self) -> dict[str, Any]:
        """What the results in the folder are of; nothing where there are none."""
        path = self.folder / SETTINGS
        return read_json(path) if path.exists() else {}

    @contextlib.contextmanager
    def hold(
        self,
        settings: Settings,
        noted: Settings | None = None,
        *,
        defaults: Settings | None = None,
        overwrite: bool = False,
    ) -> Iterator[None]:
        """Make the folder and keep it for this process, with the settings written down.

        Of several hosts the first holds it, and the others wait until it does. Where nothing came
        of it, no trace is left.

        Args:
            settings: must be those of the results that are there, as far as those say.
            noted: stands in the file beside them, and may differ.
            defaults: of settings that an older release did not write down.
            overwrite: remove the results that are there first.

        Raises:
            ValueError: where another process holds it, or the settings differ.
        """
        if not hosts.first():
            hosts.wait()
            yield
            return
        with sole_writer(self.folder):
            try:
                self._claim(settings, noted or {}, defaults or {}, overwrite)
                hosts.wait()
                yield
            finally:
                if not any(self._results(self.settings())):
                    (self.folder / SETTINGS).unlink(missing_ok=True)

    def _claim(
        self, settings: Settings, noted: Settings, defaults: Settings, overwrite: bool
    ) -> None:
        self.check()
        remove_temporaries(self.folder)
        found = self.settings()
        there = list(self._results(found))
        if there and not found:
            warnings.warn(
                f"{self.folder}: its {SETTINGS} is gone: going on with these settings", stacklevel=2
            )
        found = {**defaults, **found} if found else {}
        differ = [k for k, v in _plain(settings).items() if k in found and found[k] != v]
        if there and differ and not overwrite:
            raise ValueError(
                f"{self.folder}: holds a {self.kind} of another {', '.join(differ)}: {self._fix}"
            )
        if overwrite or differ:
            for path in there:
                _remove(path, self.folder)
            found = {}
        write_json(self.folder / SETTINGS, {**found, "kind": self.kind, **settings, **noted})


def _plain(settings: Settings) -> dict[str, Any]:
    """As JSON gives them back."""
    return json.loads(json.dumps(settings))


def _remove(path: Path, root: Path) -> None:
    """Remove a file of results, and the folders below `root` that it leaves empty."""
    path.unlink()
    for parent in path.parents:
        if parent == root or any(parent.iterdir()):
            break
        parent.rmdir()
