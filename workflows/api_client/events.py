"""What a ComfyUI tells of its runs as they happen, by its web socket.

Only for display and for being quick: the history of the server says how a run ended. So a socket
that cannot be opened, or breaks, or sends anything else, leaves silence and no error.
"""

from __future__ import annotations

import json
import queue
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

from .http import RunError, split

try:
    import websocket as _websocket
except ImportError:
    websocket: ModuleType | None = None
else:
    websocket = _websocket

_SECONDS = 10.0  # for the connection
_MOST_BYTES = 64 * 2**20  # of one message; a preview has 1 MB
_MOST_EVENTS = 1000  # that wait; more are dropped


class Events:
    """Messages of the server, from a thread that listens."""

    def __init__(self) -> None:
        self._queue: queue.Queue[dict] = queue.Queue(_MOST_EVENTS)
        self.connected = threading.Event()
        self.settled = threading.Event()  # connected, or it is known that there is no connection

    def next(self, seconds: float) -> dict:
        """The next message; {} if none comes in this time."""
        try:
            return self._queue.get(timeout=seconds)
        except queue.Empty:
            return {}

    def _put(self, message: object) -> None:
        if isinstance(message, dict) and isinstance(message.get("data"), dict):
            with suppress(queue.Full):
                self._queue.put_nowait(message)


@contextmanager
def listen(url: str, client: str) -> Iterator[Events]:
    """Events for the client of this name, listened for while the block runs."""
    events = Events()
    if websocket is None:
        yield events
        return
    link = _Link()
    threading.Thread(
        target=_listen, args=(websocket, link, url, client, events), daemon=True
    ).start()
    events.settled.wait(_SECONDS)  # before a graph is queued, so that nothing is missed
    try:
        yield events
    finally:
        link.close()


class _Link:
    """The socket under a web socket, with a limit of what one message may bring."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._closed = False
        self.got = 0

    def open(self, url: str) -> None:
        scheme, host, port, _ = split(url)
        link = socket.create_connection((host, port), _SECONDS)
        if scheme == "https":
            link = ssl.create_default_context().wrap_socket(link, server_hostname=host)
        self._socket = link
        if self._closed:
            self.close()

    def close(self) -> None:
        self._closed = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()

    def recv(self, size: int) -> bytes:
        if self._socket is None:
            raise OSError("not connected")
        data = self._socket.recv(size)
        self.got += len(data)
        if self.got > _MOST_BYTES:
            raise OSError("a message that is too long")
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_socket"], name)


def _listen(library: ModuleType, link: _Link, url: str, client: str, events: Events) -> None:
    try:
        link.open(url)
        address = f"{url.replace('http', 'ws', 1)}/ws?clientId={client}"
        connection = library.create_connection(
            address, timeout=_SECONDS, suppress_origin=True, socket=link, redirect_limit=0
        )
        connection.settimeout(None)
        events.connected.set()
        events.settled.set()
        while True:
            link.got = 0
            message = connection.recv()
            if isinstance(message, str) and message:  # bytes are previews
                with suppress(ValueError, RecursionError):
                    events._put(json.loads(message))
            elif not message:
                return
    except (OSError, ValueError, RunError, library.WebSocketException):
        return  # the history is asked instead
    finally:
        events.connected.clear()
        events.settled.set()
        link.close()
