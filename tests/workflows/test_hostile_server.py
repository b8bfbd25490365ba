"""The runner against servers that are broken or hostile: one line with the address, no traceback.

Every row changes what one path answers. What cannot be used is refused; where nothing is lost by
it the run goes on.
"""

import base64
import hashlib
import json
import re
import time

import pytest

from image_to_prompt.tests.workflows.hostile_server import (
    PICTURE,
    endless,
    entry,
    ok,
    serve,
    silent,
    slowly,
)
from image_to_prompt.workflows import run
from image_to_prompt.workflows.comfyui import client, events, http, outputs

SECONDS, MOST = 0.6, 200_000  # in place of the client's own patience and limit
HTML = b"<html><body>502</body></html>"
DEEP = b"[" * 100_000
SHORT = b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nX: "

# What any path may answer, and what is then said.
ANYWHERE = {
    "a page": (ok(HTML), "expected JSON"),
    "nothing at all": (b"", "closed without an answer"),
    "noise": (b"\x00\xff\x80 noise\r\n\r\n", "not an HTTP answer"),
    "half a status line": (b"HTTP/1.", "not an HTTP answer"),
    "a status that is no number": (b"HTTP/1.1 abc OK\r\n\r\n", "not an HTTP answer"),
    "a greeting of another service": (b"SSH-2.0-OpenSSH_9.6\r\n", "not an HTTP answer"),
    "a line that is too long": (HEAD + b"x" * 200_000, "not an HTTP answer"),
    "a thousand headers": (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 1000, "not an HTTP answer"),
    "a body that ends early": (SHORT, "ends after 1 of 900"),
    "chunks that end early": (CHUNKED + b"ff\r\n{", "ends early"),
    "chunks of no size": (CHUNKED + b"zz\r\n{}\r\n", "ends early"),
    "letters of no code": (ok(b'{"a": "\xff\xfe"}'), "expected JSON"),
    "JSON without an end": (ok(b'{"prompt_id": "n1"'), "expected JSON"),
    "deep JSON": (ok(DEEP), "expected JSON"),
    "a list": (ok([1, 2]), "expected a JSON object; got list"),
    "a number": (ok(3), "expected a JSON object; got int"),
    "null": (ok(None), "expected a JSON object; got NoneType"),
    "a number of 5000 digits": (ok(b'{"a": ' + b"9" * 5000 + b"}"), "expected JSON"),
    "a redirect": (
        ok(b"", "302 Found", "Location: http://127.0.0.1:1/other\r\n"),
        "redirects to 'http://127.0.0.1:1/other'",
    ),
    "a redirect to a file": (ok(b"", "301 X", "Location: file:///etc/passwd\r\n"), "redirects to"),
    "a redirect to nowhere": (ok(b"", "307 X"), "redirects to 'no address'"),
    "not found": (ok(HTML, "404 Not Found"), "404"),
    "an error": (ok(b"\x1b[2Jboom", "500 Internal Server Error"), "500"),
    "an error of a gateway": (ok(HTML, "502 Bad Gateway"), "502"),
    "a large answer": (ok(b'"' + b"x" * MOST + b'"'), "expected at most"),
    "an answer of 2**62 bytes": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 4611686018427387904\r\n\r\n{}",
        "expected at most",
    ),
    "an endless answer": (endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536), "at most"),
    "endless chunks": (endless(CHUNKED, b"ff\r\n" + b"x" * 255 + b"\r\n"), "at most"),
    "endless 100 Continue": (endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "no whole answer"),
    "silence": (silent, "no whole answer within"),
    "a slow status": (slowly(b"HTTP/1.1 200 OK"), "no whole answer within"),
    "a slow header": (slowly(HEAD), "no whole answer within"),
    "a slow body": (slowly(b"HTTP/1.1 200 OK\r\n\r\n{"), "no whole answer within"),
    "slow chunks": (slowly(CHUNKED + b"1\r\n{\r\n1\r\n"), "no whole answer within"),
}
UPLOAD, PROMPT, HISTORY, QUEUE, VIEW = "/upload/image", "/prompt", "/history", "/queue", "/view"
REFUSED = {"error": {"message": "no"}, "node_errors": {"7": {"errors": [{"message": "\x1b[2J"}]}}}
STRANGE = {"error": ["x"], "node_errors": {"7": {"class_type": [], "errors": 3}, "8": None}}
FAILED = {"messages": [["execution_error", {"node_id": 7, "exception_message": None}]]}
ODD = {"messages": [None, 3, [], ["execution_error"], {"a": 1}], "status_str": "error"}

# One path that answers what JSON allows and ComfyUI never says.
WRONG = {
    "an upload without a name": (UPLOAD, {"subfolder": ""}, "expected the name"),
    "an upload of no text": (UPLOAD, {"name": {"a": 1}}, "expected the name"),
    "a subfolder of no text": (UPLOAD, {"name": "x", "subfolder": 3}, "expected the name"),
    "a prompt without an id": (PROMPT, {}, "expected the id"),
    "an id that is a list": (PROMPT, {"prompt_id": ["n1"]}, "expected the id"),
    "an id of a megabyte": (PROMPT, {"prompt_id": "n" * 100_000}, "expected the id"),
    "node errors without a word": (PROMPT, {"node_errors": [1]}, "does not name"),
    "a history without the run, and no queue": (HISTORY, {}, "has forgotten the run"),
    "a run that is null": (HISTORY, {"n1": None}, "expected the record"),
    "a run that is a list": (HISTORY, {"n1": [1]}, "expected the record"),
    "a run without outputs": (HISTORY, {"n1": {}}, "expected the outputs"),
    "outputs that are a list": (HISTORY, entry(outputs=[1]), "expected the outputs"),
    "a failure without words": (HISTORY, entry(status=FAILED), r"node 7 \(unknown\)"),
    "a failure of odd messages": (HISTORY, entry(status=ODD), "node unknown"),
    "an empty picture": (VIEW, b"", "expected a file; got an empty answer"),
    "a picture that is a page": (VIEW, HTML, r"expected a \.png file"),
    "a picture that is JSON": (VIEW, {"error": "no"}, r"expected a \.png file"),
}
# What does no harm.
HARMLESS = {
    "outputs of no mapping": (HISTORY, ok(entry(outputs={"9": 3, "save": None, "57:9": []}))),
    "images that are no list": (HISTORY, ok(entry(outputs={"9": {"images": {"a": 1}}}))),
    "items of no kind": (HISTORY, ok(entry(outputs={"9": {"images": [1, None, "x", [], {}]}}))),
    "a name that is a number": (
        HISTORY,
        ok(entry(outputs={"9": {"images": [{"filename": 3, "type": "output"}]}})),
    ),
    "a status that is null": (HISTORY, ok(entry(status=None))),
    "messages that are a number": (HISTORY, ok(entry(status={"messages": 3}))),
    "a refused interruption": ("/interrupt", ok(b"", "500 No")),
}


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    answer = http._answer

    def quick(url, seconds, *rest):
        return answer(url, min(seconds, SECONDS), *rest)

    monkeypatch.setattr(http, "_answer", quick)
    monkeypatch.setattr(http, "MOST_JSON", MOST)
    monkeypatch.setattr(outputs, "_MOST_BYTES", MOST)
    monkeypatch.setattr(events, "_SECONDS", SECONDS)
    monkeypatch.setattr(client, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(client, "_SILENCE_SECONDS", 0.05)


@pytest.fixture
def command(tmp_path, capsys):
    """Runs the command on a graph and a picture; its exit code, output, and lines of errors."""
    graph = {"7": {"class_type": "LoadImage", "inputs": {"image": "x"}}}
    (tmp_path / "graph.json").write_text(json.dumps(graph))
    (tmp_path / "cat.png").write_bytes(PICTURE)

    def call(url):
        line = [str(tmp_path / "graph.json"), "--image", str(tmp_path / "cat.png")]
        began = time.monotonic()
        code = run.main([*line, "--server", url, "--out", str(tmp_path / "out")])
        assert time.monotonic() - began < 15
        out, err = capsys.readouterr()
        return code, out, err.splitlines()

    return call


def test_the_stand_in_is_otherwise_a_good_server(command, tmp_path):
    with serve({}) as url:
        assert command(url) == (0, f"{tmp_path / 'out' / 'a.png'}\n", [])


@pytest.mark.parametrize("path", [UPLOAD, PROMPT, HISTORY])
@pytest.mark.parametrize("name", ANYWHERE)
def test_a_broken_answer_is_told_in_one_line_with_its_address(name, path, command):
    answer, message = ANYWHERE[name]
    with serve({path: answer}) as url:
        code, out, lines = command(url)
    assert (code, out, len(lines)) == (1, "", 1)
    assert lines[0].startswith(f"{url}{path}") and message in lines[0]
    assert lines[0].isprintable() and len(lines[0]) < 500


@pytest.mark.parametrize("name", [n for n in ANYWHERE if "expected" not in ANYWHERE[n][1]])
def test_a_picture_that_does_not_arrive_is_told_and_leaves_no_file(name, command, tmp_path):
    answer, message = ANYWHERE[name]
    with serve({VIEW: answer}) as url:
        code, _, lines = command(url)
    assert (code, len(lines)) == (1, 1)
    assert lines[0].startswith(f"{url}{VIEW}") and message in lines[0]
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("name", WRONG)
def test_an_answer_of_wrong_types_is_told_in_one_line(name, command):
    path, content, message = WRONG[name]
    with serve({path: ok(content)}) as url:
        code, out, lines = command(url)
    assert (code, out, len(lines)) == (1, "", 1)
    assert re.search(message, lines[0])
    assert lines[0].isprintable() and len(lines[0]) < 500


@pytest.mark.parametrize("name", HARMLESS)
def test_what_does_no_harm_does_not_end_the_run(name, command):
    path, answer = HARMLESS[name]
    with serve({path: answer}) as url:
        assert command(url)[0] == 0


@pytest.mark.parametrize("content", [REFUSED, STRANGE, {}, [], "x"], ids=repr)
def test_a_refusal_is_told_whatever_its_types(content, command):
    with serve({PROMPT: ok(content, "400 Bad Request")}) as url:
        code, out, lines = command(url)
    assert (code, out) == (1, "") and lines
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(
    "queue", [{}, {"queue_running": 3, "queue_pending": []}, {"queue_running": [[]]}], ids=repr
)
def test_a_queue_of_wrong_types_is_told(queue, command):
    with serve({QUEUE: ok(queue), HISTORY: ok({})}) as url:
        code, _, lines = command(url)
    assert code == 1 and lines[0].startswith(f"{url}/queue: expected the server's queue")


# --- the web socket ----------------------------------------------------------------------------


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
    "deep JSON": shaken(text(DEEP[:60000])),
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


# --- addresses ---------------------------------------------------------------------------------

ADDRESSES = (
    "",
    "127.0.0.1:8188",
    "ftp://127.0.0.1",
    "file:///etc/passwd",
    "http://",
    "http://127.0.0.1:port",
    "http://127.0.0.1:99999",
    "http://[::1",
    "http://a b",
    "http://127.0.0.1:1/\r\nX: y",
    "http://" + "a" * 70 + ".example",
    "http://..",
    "http://127.0.0.1:1",
    "http://no-such-machine.invalid",
)


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_that_cannot_be_reached_is_named(address, command):
    code, _, lines = command(address)
    assert (code, len(lines)) == (1, 1)
    assert (address or "''").rstrip("/")[:60].split("\r")[0] in lines[0]
