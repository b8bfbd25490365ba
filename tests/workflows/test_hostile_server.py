"""The runner against servers that are broken or hostile: one line with the address, no traceback.

Every row changes what one path answers. What cannot be used is refused; where nothing is lost by
it the run goes on.
"""

import re

import pytest

from image_to_prompt.tests.workflows.hostile_server import (
    MOST,
    endless,
    entry,
    ok,
    serve,
    silent,
    slowly,
)

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


pytestmark = pytest.mark.usefixtures("impatient")


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
