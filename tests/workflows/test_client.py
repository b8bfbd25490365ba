"""The client against a stand-in server that answers as ComfyUI does; no socket library needed."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from image_to_prompt.workflows import run
from image_to_prompt.workflows.comfyui import client

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


class Handler(BaseHTTPRequestHandler):
    """Answers as `server.state` says, and keeps there what it is sent."""

    def do_GET(self):
        state, path = self.server.state, self.path.split("?")[0]
        if path == "/view":
            return self.answer(200, b"picture")
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
        status=200,
        history=ENTRY,
        queued=[],
        prompt={"prompt_id": "n1", "number": 1, "node_errors": {}},
        url=f"http://127.0.0.1:{server.server_port}",
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(client, "websocket", None)
    monkeypatch.setattr(client, "_POLL_SECONDS", 0.01)
    yield state
    server.shutdown()
    server.server_close()


def test_a_run_is_polled_to_its_end_and_its_saved_pictures_are_fetched(fake, tmp_path):
    entry = client.run(fake.url, GRAPH)
    assert client.fetch_images(fake.url, entry, tmp_path / "out") == [tmp_path / "out" / "a.png"]
    assert (tmp_path / "out" / "a.png").read_bytes() == b"picture"
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


def test_control_c_interrupts_the_servers_run(fake, monkeypatch):
    fake.history, fake.queued = None, ["n1"]

    def press(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(client.time, "sleep", press)
    with pytest.raises(KeyboardInterrupt):
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
    assert "refused" in capsys.readouterr().err.lower()
