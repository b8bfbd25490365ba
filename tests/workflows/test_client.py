"""The client against a stand-in server that answers as ComfyUI does; no socket library needed."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest

from image_to_prompt.workflows import run
from image_to_prompt.workflows.api_client import client, events, outputs
from image_to_prompt.workflows.comfyui import hosts

PICTURE = b"\x89PNG\r\n\x1a\n and so on"
GRAPH = {"7": {"class_type": "ImageToPromptEmbed", "inputs": {}}}
ENTRY = {
    "outputs": {
        "9": {
            "images": [
                {"filename": "a.png", "subfolder": "", "type": "output"},
                {"filename": "t.png", "subfolder": "", "type": "temp"},
            ]
        }
    },
    "status": {"messages": [["execution_success", {}]]},
}
FAILED = {
    "outputs": {},
    "status": {
        "messages": [
            [
                "execution_error",
                {
                    "node_id": "7",
                    "node_type": "ImageToPromptEmbed",
                    "exception_type": "ImageToPromptError",
                    "exception_message": "Expected a. Got b.\n",
                },
            ]
        ]
    },
}
INTERRUPTED = {
    "outputs": {},
    "status": {"messages": [["execution_interrupted", {"node_id": "3", "node_type": "KSampler"}]]},
}
REFUSED = {
    "error": {"message": "Prompt outputs failed validation", "details": ""},
    "node_errors": {
        "7": {
            "class_type": "ImageToPromptEmbed",
            "errors": [{"message": "Required input is missing", "details": "clip"}],
        }
    },
}


SCRIPT = hosts.PACK / "workflows" / "run.py"


class Handler(BaseHTTPRequestHandler):
    """Answers as `server.state` says, and keeps there what it is sent."""

    def do_GET(self):
        state, path = self.server.state, self.path.split("?")[0]
        if path == "/view":
            state.viewed.append(parse_qs(urlsplit(self.path).query))
            return self.answer(200, PICTURE)
        if path == "/queue":
            running = [[0, number] for number in state.queued]
            return self.answer(200, {"queue_running": running, "queue_pending": []})
        return self.answer(200, {"n1": state.history} if state.history else {})

    def do_POST(self):
        state, body = self.server.state, self.rfile.read(int(self.headers["Content-Length"]))
        state.posted.append((self.path, self.headers["Content-Type"], body))
        if self.path == "/prompt":
            return self.answer(state.status, state.prompt)
        return self.answer(200, {"name": "x (1).png", "subfolder": "sub"})

    def answer(self, status, content):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def fake(monkeypatch):
    """A server whose answers a test sets, and which keeps what it is sent."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.state = state = SimpleNamespace(
        posted=[],
        viewed=[],
        status=200,
        history=ENTRY,
        queued=[],
        prompt={"prompt_id": "n1", "number": 1, "node_errors": {}},
        url=f"http://127.0.0.1:{server.server_port}",
    )
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(events, "websocket", None)
    monkeypatch.setattr(client, "_POLL_SECONDS", 0.01)
    yield state
    server.shutdown()
    server.server_close()


def test_a_run_is_polled_to_its_end_and_its_saved_pictures_are_fetched(fake, tmp_path):
    entry = client.run(fake.url, GRAPH)
    assert outputs.fetch(fake.url, entry, tmp_path / "out") == [tmp_path / "out" / "a.png"]
    assert (tmp_path / "out" / "a.png").read_bytes() == PICTURE
    assert json.loads(fake.posted[0][2])["prompt"] == GRAPH


def test_an_uploaded_picture_arrives_whole_and_under_the_servers_name(fake, tmp_path):
    picture = tmp_path / "cat.png"
    picture.write_bytes(b"\x89PNG\r\n\r\n--bytes")
    assert client.upload(fake.url, picture) == "sub/x (1).png"
    _, kind, body = fake.posted[0]
    boundary = kind.split("boundary=")[1].encode()
    head, content = body.split(b"\r\n\r\n", 1)
    assert b'name="image"; filename="cat.png"' in head
    assert content == picture.read_bytes() + b"\r\n--" + boundary + b"--\r\n"


def test_a_refused_graph_is_told_node_by_node(fake):
    fake.status, fake.prompt = 400, REFUSED
    with pytest.raises(client.RunError) as error:
        client.run(fake.url, GRAPH)
    assert str(error.value) == (
        "Prompt outputs failed validation\n"
        "node 7 (ImageToPromptEmbed): Required input is missing: clip"
    )


def test_a_graph_that_is_half_accepted_is_taken_back(fake):
    fake.prompt = {"prompt_id": "n1", "node_errors": REFUSED["node_errors"]}
    with pytest.raises(client.RunError, match=r"node 7 .*: Required input is missing: clip"):
        client.run(fake.url, GRAPH)
    assert ("/queue", {"delete": ["n1"]}) in [(p, json.loads(b)) for p, _, b in fake.posted]


def test_a_failed_node_is_told_in_the_hosts_words(fake):
    fake.history = FAILED
    with pytest.raises(client.RunError) as error:
        client.run(fake.url, GRAPH)
    assert str(error.value) == (
        "node 7 (ImageToPromptEmbed): ImageToPromptError: Expected a. Got b."
    )


def test_a_run_interrupted_on_the_server_is_said(fake):
    fake.history = INTERRUPTED
    with pytest.raises(client.RunError, match=r"interrupted on the server at node 3 .KSampler."):
        client.run(fake.url, GRAPH)


def test_a_run_that_vanished_from_the_queue_does_not_wait_for_ever(fake):
    fake.history = None
    with pytest.raises(client.RunError, match="forgotten"):
        client.run(fake.url, GRAPH)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ZeroDivisionError])
def test_what_ends_the_client_interrupts_the_servers_run(error, fake, monkeypatch):
    fake.history, fake.queued = None, ["n1"]

    def press(*_):
        raise error

    monkeypatch.setattr(events.Events, "next", press)
    with pytest.raises(error):
        client.run(fake.url, GRAPH)
    assert ("/interrupt", {"prompt_id": "n1"}) in [
        (path, json.loads(body)) for path, _, body in fake.posted
    ]


def test_the_command_ends_with_1_and_the_servers_words(fake, tmp_path, capsys):
    fake.status, fake.prompt = 400, REFUSED
    file = tmp_path / "graph.json"
    file.write_text(json.dumps(GRAPH))
    assert run.main([str(file), "--server", fake.url, "--out", str(tmp_path)]) == 1
    assert "Required input is missing: clip" in capsys.readouterr().err


def test_the_command_prints_where_the_pictures_are(fake, tmp_path, capsys):
    file = tmp_path / "graph.json"
    file.write_text(json.dumps(GRAPH))
    assert run.main([str(file), "--server", f"{fake.url}/", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "a.png")


def test_a_server_that_is_not_there_is_said(tmp_path, capsys):
    file = tmp_path / "graph.json"
    file.write_text(json.dumps(GRAPH))
    assert run.main([str(file), "--server", "http://127.0.0.1:9"]) == 1
    told = capsys.readouterr().err
    assert (
        told.startswith("http://127.0.0.1:9/prompt: connection refused") and told.count("\n") == 1
    )


# --- what is saved -----------------------------------------------------------------------------


def saved(*items, kind="images"):
    return {kind: [{"subfolder": "", "type": "output", **item} for item in items]}


def test_ids_of_nodes_may_be_no_numbers_and_keep_their_order(fake, tmp_path):
    nodes = {n: saved({"filename": f"{n[0]}.png"}) for n in ("save", "57:9", "9", "10")}
    paths = outputs.fetch(fake.url, {"outputs": nodes}, tmp_path)
    assert [path.name for path in paths] == ["9.png", "1.png", "5.png", "s.png"]


def test_subfolders_are_kept_so_that_equal_names_stay_apart(fake, tmp_path):
    items = [{"filename": "x.png", "subfolder": folder} for folder in ("", "a", "a/b", "c\\d")]
    paths = outputs.fetch(fake.url, {"outputs": {"1": saved(*items)}}, tmp_path)
    expected = ["x.png", "a/x.png", "a/b/x.png", "c/d/x.png"]
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == expected
    assert fake.viewed[3] == {"filename": ["x.png"], "subfolder": ["c\\d"], "type": ["output"]}


def test_a_file_that_exists_is_kept_and_the_next_free_name_is_taken(fake, tmp_path):
    (tmp_path / "x.png").write_text("mine")
    (tmp_path / "x-2.png").symlink_to(tmp_path / "nowhere")
    entry = {"outputs": {"1": saved({"filename": "x.png"})}}
    assert outputs.fetch(fake.url, entry, tmp_path) == [tmp_path / "x-3.png"]
    assert outputs.fetch(fake.url, entry, tmp_path) == [tmp_path / "x-4.png"]
    assert (tmp_path / "x.png").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("kind", outputs.KINDS)
def test_every_known_kind_of_output_is_fetched(kind, fake, tmp_path):
    nodes = {"1": saved({"filename": "x.glb"}, kind=kind) | {"animated": [True], "text": ["x"]}}
    assert outputs.fetch(fake.url, {"outputs": nodes}, tmp_path) == [tmp_path / "x.glb"]


def test_a_file_of_another_kind_is_left_and_told(fake, tmp_path):
    told = []
    nodes = {"1": saved({"filename": "x.exe"}, {"filename": ".bashrc"}, {"filename": "png"})}
    assert outputs.fetch(fake.url, {"outputs": nodes}, tmp_path, told.append) == []
    assert [line.split(": ")[1].split(",")[0] for line in told] == ["x.exe", ".bashrc", "png"]
    assert list(tmp_path.iterdir()) == [] and fake.viewed == []


def test_a_link_inside_the_folder_does_not_lead_out_of_it(fake, tmp_path):
    out, other = tmp_path / "out", tmp_path / "other"
    out.mkdir(), other.mkdir()
    (out / "sub").symlink_to(other)
    entry = {"outputs": {"1": saved({"filename": "x.png", "subfolder": "sub"})}}
    with pytest.raises(client.RunError, match="leads out of"):
        outputs.fetch(fake.url, entry, out)
    assert list(other.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal to send")
def test_sigterm_interrupts_the_servers_run(fake, tmp_path):
    fake.history, fake.queued = None, ["n1"]
    (tmp_path / "graph.json").write_text(json.dumps(GRAPH))
    line = [sys.executable, str(SCRIPT), "graph.json", "--server", fake.url]
    process = subprocess.Popen(line, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not fake.posted and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert process.stderr.read() == ""
    assert ("/interrupt", {"prompt_id": "n1"}) in [(p, json.loads(b)) for p, _, b in fake.posted]
