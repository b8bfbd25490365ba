"""SIGTERM, where another library would take it over."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def sigterm_kept() -> Iterator[None]:
    """The block may set a handler of its own; afterwards the one from before is there again.

    `ray.init` sets one that ends the process with exit code 1 or 15, before anything is saved.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
