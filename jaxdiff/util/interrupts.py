"""Ctrl-C: at once, whatever runs, with a line that says what is kept."""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import NoReturn

GRACE = 1.5  # seconds in which what runs may stop by itself, and clean up
_kept = "nothing was written"
_watched = False


def keep(message: str) -> None:
    """Say what is kept if Ctrl-C comes from here on."""
    global _kept
    _kept = message


def line() -> str:
    """What stands on the terminal after Ctrl-C."""
    return f"stopped: {_kept}"


def watched() -> bool:
    """Whether `leave` may end this process: it belongs to a command line and not to its caller."""
    return _watched


def leave() -> NoReturn:
    """Say what is kept and end the process, without finalising the interpreter.

    XLA compiles in a thread of its own while Python waits. Finalising destroys the client that the
    thread goes on to use: the process would end with a segmentation fault.
    """
    with contextlib.suppress(OSError):
        os.write(2, (line() + "\n").encode(errors="replace"))  # no lock, unlike sys.stderr
    os._exit(130)


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Inside, Ctrl-C ends the process: for imports, which would swallow or show what it raises."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # it is not ours
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: leave())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def prompt() -> Iterator[None]:
    """Inside, Ctrl-C ends the process soon, with exit code 130.

    Python raises KeyboardInterrupt between two instructions of its main thread. That can be long
    after, where XLA compiles or a program runs, or never, where the exception falls into a
    callback that swallows it. The signal is therefore also sent to a thread, which waits for
    `GRACE` seconds and then leaves.
    """
    global _watched
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)

    def watch() -> None:
        with ours:
            while number := ours.recv(1):
                if number[0] == signal.SIGINT:
                    time.sleep(GRACE)
                    leave()

    threading.Thread(target=watch, name="ctrl-c", daemon=True).start()
    _watched = True
    try:
        yield
    finally:
        _watched = False
        signal.set_wakeup_fd(before)
        theirs.close()


def flush() -> None:
    """What was printed so far is seen, also where the process ends by `leave`."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
