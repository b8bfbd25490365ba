"""HTTP to a ComfyUI whose answers are not trusted.

Every request has a deadline for the whole answer and a limit of its size. Redirects are not
followed and proxies are not used: the address is the server's own. Whatever goes wrong is a
RunError of one line that names the address. Standard library only.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

MOST_JSON = 64 * 2**20  # bytes; the description of all nodes of a large installation has 10 MB
_CHUNK = 2**16
_SCHEMES = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}


class RunError(RuntimeError):
    """A server cannot be reached, refuses a graph, or one of its nodes fails."""


class StatusError(RunError):
    """An answer with a status other than 2xx. body: its first bytes as text."""

    def __init__(self, url: str, status: int, body: str) -> None:
        super().__init__(f"{url}: HTTP status {status}")
        self.status, self.body = status, body


def get_json(url: str, seconds: float = 30) -> dict:
    """The JSON object that a GET answers. Raises RunError."""
    with _answer(url, seconds) as response:
        return _object(url, _body(url, response, MOST_JSON))


def post(url: str, body: bytes, kind: str, seconds: float = 30) -> dict:
    """The JSON object that a POST answers; {} for an empty answer. Raises RunError."""
    with _answer(url, seconds, "POST", body, kind) as response:
        return _object(url, _body(url, response, MOST_JSON) or b"{}")


def post_json(url: str, content: object, seconds: float = 30) -> dict:
    """`post` of a value as JSON."""
    return post(url, json.dumps(content).encode(), "application/json", seconds)


def download(url: str, file: BinaryIO, seconds: float, most: int) -> None:
    """Write what a GET answers into an open file. Raises RunError."""
    with _answer(url, seconds) as response:
        for chunk in _chunks(url, response, most):
            file.write(chunk)


def split(url: str) -> tuple[str, str, int, str]:
    """Scheme, host, port and path of an address. Raises RunError for anything else."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode("ascii")
    except ValueError:  # a port that is no number, a bracket, a label of 64 letters
        host, port = "", None
    if not host or parts.scheme not in _SCHEMES or not url.isascii() or _has_blank(url):
        raise RunError(f"{url!r}: expected an address such as http://127.0.0.1:8188")
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    return parts.scheme, host, port or (443 if parts.scheme == "https" else 80), path


def _has_blank(text: str) -> bool:
    return any(letter <= " " or letter == "\x7f" for letter in text)


@contextmanager
def _answer(
    url: str, seconds: float, method: str = "GET", body: bytes | None = None, kind: str = ""
) -> Iterator[http.client.HTTPResponse]:
    """A good answer, before its body is read. Its body must be read within the same deadline."""
    scheme, host, port, path = split(url)
    connection = _SCHEMES[scheme](host, port, timeout=seconds)
    late = threading.Event()
    timer = threading.Timer(seconds, _cut, (connection, late))
    timer.daemon = True
    timer.start()
    try:
        connection.connect()
        if late.is_set():
            raise TimeoutError
        connection.request(method, path or "/", body, {"Content-Type": kind} if kind else {})
        response = connection.getresponse()
        _require_good(url, response)
        yield response
        if late.is_set():  # what was cut may look whole where no length was announced
            raise TimeoutError
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        timed_out = late.is_set() or isinstance(error, TimeoutError)
        why = f"no whole answer within {seconds:g} s" if timed_out else _reason(error)
        raise RunError(f"{url}: {why}") from error
    except RunError as error:  # an answer that seems to end early, since it was cut
        if late.is_set():
            raise RunError(f"{url}: no whole answer within {seconds:g} s") from error
        raise
    finally:
        timer.cancel()
        connection.close()


def _cut(connection: http.client.HTTPConnection, late: threading.Event) -> None:
    """End a connection that is past its deadline: a read that waits then ends at once."""
    late.set()
    if isinstance(connection.sock, socket.socket):
        with suppress(OSError):
            connection.sock.shutdown(socket.SHUT_RDWR)


def _require_good(url: str, response: http.client.HTTPResponse) -> None:
    status = response.status
    if 200 <= status < 300:
        return
    if 300 <= status < 400:
        to = (response.getheader("Location") or "no address")[:200]
        raise RunError(f"{url}: redirects to {to!r}; give the address of ComfyUI itself")
    text = b""
    with suppress(RunError):  # the status says enough
        text = _body(url, response, MOST_JSON)
    raise StatusError(url, status, text.decode(errors="replace"))


def _body(url: str, response: http.client.HTTPResponse, most: int) -> bytes:
    return b"".join(_chunks(url, response, most))


def _chunks(url: str, response: http.client.HTTPResponse, most: int) -> Iterator[bytes]:
    """The body in parts. Raises RunError if it is too long, or shorter than announced."""
    announced, got = response.length, 0
    if announced is not None and announced > most:
        raise RunError(f"{url}: an answer of {announced} bytes; expected at most {most}")
    while chunk := response.read1(_CHUNK):
        got += len(chunk)
        if got > most:
            raise RunError(f"{url}: expected an answer of at most {most} bytes; got more")
        yield chunk
    if announced is not None and got != announced:
        raise RunError(f"{url}: the answer ends after {got} of {announced} bytes")


def _object(url: str, body: bytes) -> dict:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        start = body[:60].decode("ascii", errors="replace").replace("\ufffd", "?")
        raise RunError(f"{url}: expected JSON, as ComfyUI answers; got {start!r}") from error
    if not isinstance(content, dict):
        raise RunError(f"{url}: expected a JSON object; got {type(content).__name__}")
    return content


def _reason(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused; is ComfyUI running there?"
    if isinstance(error, socket.gaierror):
        return "no machine of this name is known"
    if isinstance(error, ssl.SSLError):
        return f"no secure connection: {error.reason or 'failed'}"
    if isinstance(error, http.client.RemoteDisconnected):
        return "the connection was closed without an answer"
    if isinstance(error, http.client.IncompleteRead):
        return "the answer ends early"
    if isinstance(error, http.client.HTTPException | UnicodeError):
        return f"not an HTTP answer ({type(error).__name__})"
    return getattr(error, "strerror", None) or type(error).__name__
