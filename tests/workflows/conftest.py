"""The runner's command against a server that a test has made strange."""

import json
import time

import pytest

from image_to_prompt.tests.workflows.hostile_server import MOST, PICTURE, SECONDS
from image_to_prompt.workflows import run
from image_to_prompt.workflows.api_client import client, events, http, outputs


@pytest.fixture
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
