"""Talks to a running ComfyUI: uploads pictures and runs API graphs.

Standard library only; with websocket-client progress arrives as it happens, without it the
server is asked every now and then.
"""

from __future__ import annotations

import math
import mimetypes
import time
import urllib.parse
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeGuard

from . import answers, events
from .http import RunError, StatusError, get_json, post, post_json

Progress = Callable[[str, int, int], None]  # node id, done, of
_POLL_SECONDS = 0.5  # at most, between two questions where there is no web socket
_SHORTEST_POLL = 0.02  # for short runs: asking late adds at most 4 % to a run
_SILENCE_SECONDS = 5.0  # and where there is one
_INTERRUPT_SECONDS = 10.0  # for a server that has perhaps just failed
_UPLOAD_SECONDS = 120.0


class Refused(RunError):
    """The server refused a graph; nothing of it runs."""


class Failed(RunError):
    """A node failed, or the run was interrupted: the same run would most likely fail again."""


def upload(url: str, picture: Path) -> str:
    """Put a picture into the server's input folder; the name to give to a LoadImage node."""
    boundary = uuid.uuid4().hex
    mime = mimetypes.guess_type(picture.name)[0] or "application/octet-stream"
    name = "".join(c if c.isprintable() and c not in '"\\' else "_" for c in picture.name)
    head = (
        f"--{boundary}\r\nContent-Disposition: form-data; "
        f'name="image"; filename="{name}"\r\nContent-Type: {mime}\r\n\r\n'
    )
    body = head.encode() + picture.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
    address, kind = f"{url}/upload/image", f"multipart/form-data; boundary={boundary}"
    try:
        answer = post(address, body, kind, _UPLOAD_SECONDS)
    except StatusError as error:
        raise RunError(f"{error}: {answers.one_line(error.body)}") from error
    parts = [answer.get("subfolder", ""), answer.get("name")]
    if not parts[1] or not all(isinstance(part, str) for part in parts):
        raise RunError(f"{address}: expected the name of an uploaded picture; got {_short(answer)}")
    return "/".join(part for part in parts if part)


def run(
    url: str,
    graph: dict,
    progress: Progress = lambda *_: None,
    check: Callable[[], object] = lambda: None,
) -> dict:
    """Run an API graph to its end; its entry in the server's history, `outputs` and all.

    check: called at least every half second while the run is waited for; what it raises ends the
    run. Raises Refused, Failed, or another RunError. On KeyboardInterrupt, SystemExit or any other
    error here the server's run is interrupted too, and no other run of the server.
    """
    client = uuid.uuid4().hex
    # An id of our own: the run can be interrupted even while the server's answer is on its way.
    number = str(uuid.uuid4())
    with events.listen(url, client) as heard:
        try:
            number = _queue(url, graph, client, number)
            return _wait(url, graph, number, heard, progress, check)
        except Refused:
            raise
        except BaseException:
            interrupt(url, number)
            raise


def interrupt(url: str, number: str) -> None:
    """Stop a run, or take it from the queue if it has not begun."""
    with suppress(RunError):
        post_json(f"{url}/queue", {"delete": [number]}, _INTERRUPT_SECONDS)
        post_json(f"{url}/interrupt", {"prompt_id": number}, _INTERRUPT_SECONDS)


def _wait(
    url: str,
    graph: dict,
    number: str,
    heard: events.Events,
    progress: Progress,
    check: Callable[[], object],
) -> dict:
    """Show what happens until the server's history holds the run."""
    began = asked = time.monotonic()
    while True:
        check()
        pause = min(_POLL_SECONDS, max(_SHORTEST_POLL, (time.monotonic() - began) / 25))
        event = heard.next(pause)
        _show(event, number, graph, progress)
        patience = _SILENCE_SECONDS if heard.connected.is_set() else pause
        if _is_end(event, number) or time.monotonic() - asked >= patience:
            entry = _history(url, number)
            if entry is not None:
                return entry
            asked = time.monotonic()


# --- what the server says ----------------------------------------------------------------------


def _is_end(event: dict, number: str) -> bool:
    """Whether this is the last message of the run. Errors come earlier and are in the history."""
    data = event.get("data", {})
    ours = event.get("type") == "executing" and data.get("prompt_id") == number
    return ours and data.get("node") is None


def _show(event: dict, number: str, graph: dict, progress: Progress) -> None:
    data = event.get("data", {})
    node = data.get("node")
    if data.get("prompt_id") != number or not isinstance(node, str) or node not in graph:
        return
    if event.get("type") == "executing":
        progress(node, 0, 0)
    elif event.get("type") == "progress":
        done, of = data.get("value"), data.get("max")
        if _is_count(done) and _is_count(of):
            progress(node, int(done), int(of))


def _is_count(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def _queue(url: str, graph: dict, client: str, number: str) -> str:
    address = f"{url}/prompt"
    content = {"prompt": graph, "client_id": client, "prompt_id": number}
    try:
        answer = post_json(address, content)
    except StatusError as error:
        told = answers.refusal_in(error.body)
        if error.status == 400 and told:
            raise Refused(told) from error
        raise RunError(f"{error}: {told}" if told else str(error)) from error
    taken = answer.get("prompt_id")
    if answer.get("node_errors"):  # some outputs can run, others not: nobody asked for half
        interrupt(url, taken if isinstance(taken, str) else number)
        told = answers.refusal(answer)
        raise Refused(told or f"{address}: errors in nodes, which the server does not name")
    if not isinstance(taken, str) or not taken or not taken.isascii() or len(taken) > 200:
        raise RunError(f"{address}: expected the id of a queued run; got {_short(answer)}")
    return taken


def _history(url: str, number: str) -> dict | None:
    """The finished run's entry; None while it runs or waits.

    The last event may come a moment before the entry is written. Raises RunError.
    """
    address = f"{url}/history/{urllib.parse.quote(number, safe='')}"
    for _ in range(10):
        answer = get_json(address)
        if number in answer:
            return _succeeded(address, answer[number])
        if _is_queued(url, number):
            return None
        time.sleep(0.1)
    raise RunError(f"{url}: the server has forgotten the run: it was taken from the queue")


def _is_queued(url: str, number: str) -> bool:
    queue = get_json(f"{url}/queue")
    running, pending = queue.get("queue_running"), queue.get("queue_pending")
    if not isinstance(running, list) or not isinstance(pending, list):
        raise RunError(f"{url}/queue: expected the server's queue; got {_short(queue)}")
    return any(isinstance(item, list) and number in item[1:2] for item in running + pending)


def _succeeded(address: str, entry: object) -> dict:
    if not isinstance(entry, dict):
        raise RunError(f"{address}: expected the record of a run; got {_short(entry)}")
    why = answers.failure(entry)
    if why is not None:
        raise Failed(why)
    if not isinstance(entry.get("outputs"), dict):
        raise RunError(f"{address}: expected the outputs of a run; got {_short(entry)}")
    return entry


def _short(value: object) -> str:
    return answers.one_line(repr(value), 100)
