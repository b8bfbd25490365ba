"""Talks to a running ComfyUI: uploads pictures, runs an API graph, fetches what it saved.

Standard library only; with websocket-client progress arrives as it happens, without it the
server is asked every now and then.
"""

from __future__ import annotations

import json
import mimetypes
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

try:
    import websocket
except ImportError:
    websocket = None

Progress = Callable[[str, int, int], None]  # node number, done, of
_POLL_SECONDS = 0.5
_SILENCE_SECONDS = 5  # after this without a message the history is asked


class RunError(RuntimeError):
    """The server refused a graph, or one of its nodes failed; the text is the server's."""


def upload(url: str, picture: Path) -> str:
    """Put a picture into the server's input folder; the name to give to a LoadImage node."""
    boundary = uuid.uuid4().hex
    mime = mimetypes.guess_type(picture.name)[0] or "application/octet-stream"
    name = picture.name.replace('"', "_")
    head = (
        f"--{boundary}\r\nContent-Disposition: form-data; "
        f'name="image"; filename="{name}"\r\nContent-Type: {mime}\r\n\r\n'
    )
    body = head.encode() + picture.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
    answer = _post(
        f"{url}/upload/image", body, f"multipart/form-data; boundary={boundary}", seconds=120
    )
    return "/".join(part for part in (answer["subfolder"], answer["name"]) if part)


def run(url: str, graph: dict, progress: Progress = lambda *_: None) -> dict:
    """Run an API graph to its end; its entry in the server's history, `outputs` and all.

    Raises RunError if the server refuses it or a node fails. On KeyboardInterrupt, or any other
    error here, the server's run is interrupted too.
    """
    client = uuid.uuid4().hex
    with closing(_events(url, client)) as events:
        next(events)  # connected before the graph is queued, so that nothing is missed
        number = _queue(url, graph, client)
        try:
            for event in events:
                _show(event, number, graph, progress)
                if event["type"] == "silence" or _is_end(event, number):
                    entry = _history(url, number)
                    if entry is not None:
                        return _checked(entry)
        except BaseException:
            interrupt(url, number)
            raise
    raise RunError(f"the connection to {url} ended before the run did")


def interrupt(url: str, number: str) -> None:
    """Stop a run, or take it from the queue if it has not begun."""
    with suppress(OSError, RunError):
        _post_json(f"{url}/queue", {"delete": [number]})
        _post_json(f"{url}/interrupt", {"prompt_id": number})


def fetch_images(url: str, entry: dict, folder: Path) -> list[Path]:
    """Save what a run's output nodes saved, in the order of nodes, into this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    saved = []
    for _, output in sorted(entry["outputs"].items(), key=lambda item: int(item[0])):
        for image in output.get("images", []):
            if image["type"] != "output":
                continue
            with urllib.request.urlopen(
                f"{url}/view?{urllib.parse.urlencode(image)}", timeout=60
            ) as answer:
                target = folder / Path(image["filename"]).name
                target.write_bytes(answer.read())
            saved.append(target)
    return saved


# --- what the server says ----------------------------------------------------------------------


def _events(url: str, client: str) -> Iterator[dict]:
    """Messages of the server. First one of our own, once connected; `silence` if none comes."""
    silence = {"type": "silence", "data": {}}
    if websocket is None:
        while True:
            yield silence
            time.sleep(_POLL_SECONDS)
    address = f"{url.replace('http', 'ws', 1)}/ws?clientId={client}"
    socket = websocket.create_connection(address, timeout=_SILENCE_SECONDS, suppress_origin=True)
    with closing(socket):
        yield silence
        while True:
            try:
                message = socket.recv()
            except websocket.WebSocketTimeoutException:
                yield silence
                continue
            except websocket.WebSocketConnectionClosedException:
                return
            if isinstance(message, str) and message:  # bytes are previews
                yield json.loads(message)


def _is_end(event: dict, number: str) -> bool:
    """Whether this is the last message of the run. Errors come earlier and are in the history."""
    data = event.get("data") or {}
    ours = event["type"] == "executing" and data.get("prompt_id") == number
    return ours and data.get("node") is None


def _show(event: dict, number: str, graph: dict, progress: Progress) -> None:
    data = event.get("data") or {}
    if data.get("prompt_id") != number or data.get("node") not in graph:
        return
    if event["type"] == "executing":
        progress(data["node"], 0, 0)
    elif event["type"] == "progress":
        progress(data["node"], data["value"], data["max"])


def _queue(url: str, graph: dict, client: str) -> str:
    answer = _post_json(f"{url}/prompt", {"prompt": graph, "client_id": client})
    if answer.get("node_errors"):  # some outputs can run, others not: nobody asked for half
        interrupt(url, answer["prompt_id"])
        raise RunError(_refusal(answer))
    return answer["prompt_id"]


def _history(url: str, number: str) -> dict | None:
    """The finished run's entry; the last event may come a moment before it is written."""
    for _ in range(10):
        with urllib.request.urlopen(f"{url}/history/{number}", timeout=30) as answer:
            entry = json.load(answer).get(number)
        if entry is not None or _is_queued(url, number):
            return entry
        time.sleep(0.1)
    raise RunError("the server has forgotten the run: it was taken from the queue")


def _is_queued(url: str, number: str) -> bool:
    with urllib.request.urlopen(f"{url}/queue", timeout=30) as answer:
        queue = json.load(answer)
    return any(item[1] == number for item in queue["queue_running"] + queue["queue_pending"])


def _checked(entry: dict) -> dict:
    for event, data in entry["status"]["messages"]:
        if event == "execution_error":
            raise RunError(
                f"node {data['node_id']} ({data['node_type']}): "
                f"{data['exception_type']}: {data['exception_message'].strip()}"
            )
        if event == "execution_interrupted":
            raise RunError(
                f"interrupted on the server at node {data['node_id']} ({data['node_type']})"
            )
    return entry


def _refusal(answer: dict) -> str:
    """A refused graph in the server's words, one line for each thing that is wrong."""
    error = answer.get("error") or {}
    if isinstance(error, str):
        error = {"message": error}
    lines = [_sentence(error)] if error else []
    for number, node in (answer.get("node_errors") or {}).items():
        for problem in node["errors"]:
            lines.append(f"node {number} ({node['class_type']}): {_sentence(problem)}")
    return "\n".join(lines)


def _sentence(error: dict) -> str:
    parts = [str(error.get(key) or "").strip() for key in ("message", "details")]
    return ": ".join(part for part in parts if part)


def _post_json(url: str, content: dict) -> dict:
    return _post(url, json.dumps(content).encode(), "application/json")


def _post(url: str, body: bytes, kind: str, seconds: float = 30) -> dict:
    request = urllib.request.Request(url, body, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            return json.loads(answer.read() or b"{}")
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        with suppress(ValueError):
            text = _refusal(json.loads(text)) or text
        raise RunError(text.strip() or f"{url}: HTTP {error.code}") from error
