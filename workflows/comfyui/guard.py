"""Runs a program for no longer than the process that asked for it lives.

    python guard.py PROGRAM [ARGUMENT ...]      with a pipe as standard input

The system closes the pipe however the process at its other end dies, SIGKILL included; the program
is ended then. Exit code: the program's. Standard library only, and run by its path.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

_SECONDS = 10.0  # from the polite end to the other one
_PR_SET_PDEATHSIG = 1


def main(command: list[str]) -> int:
    """Run the command to its end, or to the end of standard input."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, preexec_fn=_end_with_parent(), close_fds=True
    )
    # A signal to the whole group must not end the guard before the program has ended.
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    threading.Thread(target=_watch, args=(process,), daemon=True).start()
    code = process.wait()
    return 128 - code if code < 0 else code


def _watch(process: subprocess.Popen) -> None:
    with suppress(OSError):
        while os.read(0, 1024):
            continue
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_SECONDS)
    process.kill()


def _end_with_parent() -> Callable[[], object] | None:
    """For Linux: the program ends even if the guard itself is killed."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)  # loaded before the fork
    return lambda: library.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
