"""A ComfyUI that draws nothing: started as one is, it answers as one does. Standard library only.

Copied into a folder as main.py, with comfy/ beside it, it is a host that `hosts` accepts. What a
run does is decided by its picture's content:

    poison    the server dies        broken    a node fails        stuck    it never ends
    refused   the graph is refused   slow      takes a second      else     takes --pause seconds

The result is a picture that depends on the graph and the picture's content, and on nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

PNG = b"\x89PNG\r\n\x1a\n"
NODE = "ImageToPromptEmbed"


def drawn(graph: dict, content: bytes) -> bytes:
    """The picture that a run gives, alike on every server."""
    text = json.dumps(graph, sort_keys=True).encode()
    return PNG + hashlib.sha256(text + content).hexdigest().encode()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int, base: Path, pause: float) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.base, self.pause = base, pause
        self.queue: list[tuple[str, dict]] = []
        self.running: str | None = None
        self.interrupted: set[str] = set()
        self.history: dict[str, dict] = {}
        self.changed = threading.Condition()
        threading.Thread(target=self.work, daemon=True).start()

    def work(self) -> None:
        count = 0
        while True:
            with self.changed:
                while not self.queue:
                    self.changed.wait()
                number, graph = self.queue[0]
                self.running = number
                del self.queue[0]
            count += 1
            entry = self.result(number, graph, count)
            with self.changed:
                self.history[number], self.running = entry, None

    def result(self, number: str, graph: dict, count: int) -> dict:
        content = b"".join(
            (self.base / "input" / node["inputs"]["image"]).read_bytes()
            for node in graph.values()
            if node["class_type"] == "LoadImage"
        )
        if b"poison" in content:
            print("Aborted: the picture is poison", flush=True)
            os._exit(9)
        seconds = 1.0 if b"slow" in content else 1e9 if b"stuck" in content else self.pause
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if number in self.interrupted:
                return failed("execution_interrupted", "")
            time.sleep(0.005)
        if b"broken" in content:
            return failed("execution_error", "cannot identify image file")
        if b"memory" in content:
            return failed("execution_error", "CUDA out of memory")
        name = f"drawn_{count:05}_.png"
        (self.base / "output" / name).write_bytes(drawn(graph, content))
        image = {"filename": name, "subfolder": "", "type": "output"}
        return {"outputs": {"9": {"images": [image]}}, "status": {"status_str": "success"}}


def failed(event: str, why: str) -> dict:
    data = {"node_id": "1", "node_type": "LoadImage", "exception_type": "OSError"}
    messages = [[event, data | {"exception_message": why}]]
    return {"outputs": {}, "status": {"status_str": "error", "messages": messages}}


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, content: object, status: int = 200) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        head, _, rest = parts.path.strip("/").partition("/")
        served = self.server
        if head == "system_stats":
            self.answer({"system": {}})
        elif head == "object_info":
            self.answer({NODE: {}})
        elif head == "history":
            self.answer({rest: served.history[rest]} if rest in served.history else {})
        elif head == "queue":
            with served.changed:
                running = [[0, served.running]] if served.running else []
                pending = [[0, number] for number, _ in served.queue]
            self.answer({"queue_running": running, "queue_pending": pending})
        elif head == "view":
            [name] = parse_qs(parts.query)["filename"]
            self.answer((served.base / "output" / name).read_bytes())
        else:
            self.answer({}, 404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        served = self.server
        if self.path == "/upload/image":
            head, _, rest = body.partition(b"\r\n\r\n")
            name = head.partition(b'filename="')[2].partition(b'"')[0].decode()
            content = rest.rpartition(b"\r\n--")[0]
            (served.base / "input" / name).write_bytes(content)
            self.answer({"name": name, "subfolder": ""})
        elif self.path == "/prompt":
            told = json.loads(body)
            if "refused" in json.dumps(told["prompt"]):
                self.answer({"error": {"message": "no such graph"}, "node_errors": {}}, 400)
                return
            with served.changed:
                served.queue.append((told["prompt_id"], told["prompt"]))
                served.changed.notify()
            self.answer({"prompt_id": told["prompt_id"], "node_errors": {}})
        elif self.path == "/interrupt":
            served.interrupted.add(json.loads(body)["prompt_id"])
            self.answer(b"")
        else:
            self.answer(b"")


def main() -> None:
    options = dict(zip(sys.argv[1:], sys.argv[2:], strict=False))
    base = Path(options["--base-directory"])
    with (Path(__file__).parent / "started").open("a") as started:
        started.write(f"{os.getpid()}\n")
    pause = float(os.environ.get("STAND_IN_PAUSE", "0.01"))
    Server(int(options["--port"]), base, pause).serve_forever()


if __name__ == "__main__":
    main()
