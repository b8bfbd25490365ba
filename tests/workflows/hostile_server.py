"""A server that answers as ComfyUI does, but for one path, where it sends whatever it is told."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

PICTURE = b"\x89PNG\r\n\x1a\n and so on"
SECONDS, MOST = 0.6, 200_000  # in place of the client's own patience and limit
Bytes = bytes | Callable[[socket.socket, bytes], None]


def ok(content: object, status: str = "200 OK", head: str = "") -> bytes:
    """A whole answer: JSON of any value, or bytes as they are."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return f"HTTP/1.1 {status}\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def entry(**changed: object) -> dict:
    """A run of the history that saved one picture."""
    images = [{"filename": "a.png", "subfolder": "", "type": "output"}]
    whole = {"outputs": {"9": {"images": images}}, "status": {"status_str": "success"}}
    return {"n1": whole | changed}


def slowly(data: bytes, repeat: bool = True) -> Callable[[socket.socket, bytes], None]:
    """Sends a byte now and then, and never comes to an end."""

    def send(link: socket.socket, _: bytes) -> None:
        at = 0
        while at < len(data) or repeat:
            link.sendall(data[min(at, len(data) - 1)].to_bytes(1, "big"))
            at += 1
            time.sleep(0.05)

    return send


def silent(link: socket.socket, _: bytes) -> None:
    """Says nothing, and keeps the connection."""
    with suppress(OSError):
        link.recv(1)


def endless(start: bytes, part: bytes) -> Callable[[socket.socket, bytes], None]:
    """Sends the same part for ever, as fast as it is taken."""

    def send(link: socket.socket, _: bytes) -> None:
        link.sendall(start)
        while True:
            link.sendall(part)

    return send


ANSWERS: dict[str, Bytes] = {
    "/ws": b"",
    "/upload/image": ok({"name": "x.png", "subfolder": ""}),
    "/prompt": ok({"prompt_id": "n1", "number": 1, "node_errors": {}}),
    "/history": ok(entry()),
    "/queue": ok({"queue_running": [], "queue_pending": []}),
    "/interrupt": ok(b""),
    "/view": ok(PICTURE),
}


@contextmanager
def serve(changed: dict[str, Bytes]) -> Iterator[str]:
    """The address of a server that answers by ANSWERS, but for these paths."""
    answers = ANSWERS | changed
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    link, _ = server.accept()
                    threading.Thread(target=_answer, args=(link, answers), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def _answer(link: socket.socket, answers: dict[str, Bytes]) -> None:
    with suppress(OSError), link:
        link.settimeout(20)
        head = _request(link)
        path = head.split(b" ")[1].decode()
        found = next(answer for start, answer in answers.items() if path.startswith(start))
        if isinstance(found, bytes):
            link.sendall(found)
        else:
            found(link, head)


def _request(link: socket.socket) -> bytes:
    """A request's head; its body is taken too, since a client would else see a reset."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += link.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    sizes = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    left = int(sizes[0].split(b":")[1]) - len(body) if sizes else 0
    while left > 0:
        left -= len(link.recv(65536))
    return head
