"""The process that reads: `python -m tests.fuzz.child`, a reader and a path a line on its input."""

import json
import os
import resource
import sys
import time
import warnings
from importlib import import_module
from pathlib import Path

from tests.fuzz.readers import READERS

SPACE = 2**30  # bytes of address space above what the libraries take
FORBIDDEN = (
    *("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.spawn", "subprocess.Popen"),
    *("socket.connect", "socket.bind", "urllib.Request", "ctypes.dlopen", "webbrowser.open"),
)


def main() -> None:
    warnings.simplefilter("ignore")
    report = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no report
    forbidden: list[str] = []
    watched: list[Path] = []

    def audit(event: str, arguments) -> None:
        if not watched:
            return
        if event in FORBIDDEN:
            forbidden.append(f"{event} {arguments}"[:200])
        elif event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
            if not str(arguments[0]).startswith(str(watched[0].parent.parent)):
                forbidden.append(f"wrote {arguments[0]}"[:200])

    sys.addaudithook(audit)
    import_module("h5py")  # which asks `uname` as it loads
    for line in sys.stdin:
        command, _, rest = line.rstrip("\n").partition(" ")
        if command == "limit":  # the libraries are loaded, and threads run
            taken = (
                int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
                * resource.getpagesize()
            )
            resource.setrlimit(resource.RLIMIT_AS, (taken + SPACE, taken + SPACE))
            result = {}
        else:
            watched.append(Path(rest))
            result = _read(command, watched[0]) | {"forbidden": list(forbidden)}
            watched.clear()
            forbidden.clear()
        report.write(json.dumps(result) + "\n")
        report.flush()


def _read(reader: str, path: Path) -> dict:
    started = time.perf_counter()
    result = {"error": None, "message": "", "memory": False}
    try:
        READERS[reader](path)
    except BaseException as e:
        chain: BaseException | None = e
        while chain is not None:
            result["memory"] |= isinstance(chain, MemoryError)
            chain = chain.__cause__ or chain.__context__
        result["error"], result["message"] = type(e).__name__, str(e)
        result["allowed"] = isinstance(e, ValueError | OSError)
        last = e.__traceback__
        while last is not None and last.tb_next is not None:
            last = last.tb_next
        if last is not None:
            code = last.tb_frame.f_code
            result["place"] = f"{Path(code.co_filename).name}:{last.tb_lineno}"
    return result | {"seconds": time.perf_counter() - started}


if __name__ == "__main__":
    main()
