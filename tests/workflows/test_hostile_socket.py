"""The runner against broken web sockets: only the progress is lost."""

import base64
import hashlib
import json

import pytest

from image_to_prompt.tests.workflows.hostile_server import endless, entry, ok, serve, silent, slowly
from image_to_prompt.workflows.api_client import client, events

HTML = b"<html><body>502</body></html>"
DEEP = b"[" * 60_000
HEAD = b"HTTP/1.1 101 Switching Protocols\r\nX: "
HISTORY, QUEUE = "/history", "/queue"
pytestmark = pytest.mark.usefixtures("impatient")


def shaken(*frames):
    """A good handshake, and then these bytes."""

    def send(link, head):
        key = next(
            line for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key")
        )
        secret = key.split(b": ")[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accepted = base64.b64encode(hashlib.sha1(secret).digest())
        link.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accepted + b"\r\n\r\n"
        )
        for frame in frames:
            frame(link, head) if callable(frame) else link.sendall(frame)
        silent(link, head)

    return send


def text(content):
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return b"\x81\x7e" + len(body).to_bytes(2, "big") + body


PROGRESS = {"prompt_id": "n1", "node": "7", "value": float("nan"), "max": [1]}
SOCKETS = {
    "nothing": b"",
    "a page": ok(HTML),
    "noise": b"\x00\xff\r\n\r\n",
    "half a status line": b"HTTP/1.1\r\n\r\n",
    "a status that is no number": b"HTTP/1.1 abc OK\r\n\r\n",
    "a header without a colon": b"HTTP/1.1 101 X\r\nabc\r\n\r\n",
    "an endless header": endless(HEAD, b"x" * 65536),
    "silence": silent,
    "slow": slowly(HEAD),
    "a redirect": ok(b"", "302 Found", "Location: ws://127.0.0.1:1/\r\n"),
    "no JSON": shaken(text(b"no"), text(b"\xff\xfe")),
    "deep JSON": shaken(text(DEEP)),
    "wrong types": shaken(*(text(x) for x in ([], 3, None, {}, {"type": 3}, {"data": []}))),
    "wrong progress": shaken(
        text({"type": "progress", "data": PROGRESS}),
        text({"type": "progress", "data": PROGRESS | {"node": ["7"]}}),
        text({"type": ["executing"], "data": {"prompt_id": "n1"}}),
    ),
    "a frame of no kind": shaken(b"\xff\xff\xff\xff"),
    "a frame of 2**62 bytes": shaken(b"\x81\x7f" + (2**62).to_bytes(8, "big"), b"x" * 1000),
    "a slow frame": shaken(slowly(text({"type": "x", "data": {}})[:3])),
    "ends that are none": shaken(
        endless(b"", text({"type": "executing", "data": {"prompt_id": "n1", "node": None}}))
    ),
}


@pytest.mark.skipif(events.websocket is None, reason="websocket-client is not installed")
@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("name", SOCKETS)
def test_a_broken_web_socket_costs_the_progress_only(name, command):
    with serve({"/ws": SOCKETS[name]}) as url:
        code, _, lines = command(url)
    assert (code, lines) == (0, [])


@pytest.mark.slow
@pytest.mark.skipif(events.websocket is None, reason="websocket-client is not installed")
def test_progress_is_shown_as_it_comes(monkeypatch):
    messages = [
        {"type": "executing", "data": {"prompt_id": "n1", "node": "7"}},
        {"type": "progress", "data": {"prompt_id": "n1", "node": "7", "value": 1, "max": 2}},
        {"type": "executing", "data": {"prompt_id": "n1", "node": None}},
    ]
    monkeypatch.setattr(client, "_SILENCE_SECONDS", 30)
    asked, seen = [], []

    def history(link, _):
        asked.append(len(seen))
        link.sendall(ok(entry() if len(asked) > 1 else {}))

    running = ok({"queue_running": [[0, "n1"]], "queue_pending": []})
    answers = {"/ws": shaken(*map(text, messages)), HISTORY: history, QUEUE: running}
    with serve(answers) as url:
        client.run(url, {"7": {"class_type": "X", "inputs": {}}}, lambda *a: seen.append(a))
    assert seen == [("7", 0, 0), ("7", 1, 2)]
    assert asked[1:] == [2], "asked again only when the run had ended"
