"""A folder of pictures, a graph, and a host that is a stand-in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from image_to_prompt.tests.workflows.many import stand_in
from image_to_prompt.workflows import run_many
from image_to_prompt.workflows.comfyui import hosts

GRAPH = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "x"}},
    "2": {"class_type": "ImageToPromptEmbed", "inputs": {"text": "", "strength": 1.0}},
    "3": {"class_type": "KSampler", "inputs": {"seed": 0, "steps": 2}},
}


@dataclass
class Collection:
    """A graph's file, pictures, a host, and the folder of results."""

    graph: Path
    images: Path
    host: Path
    out: Path

    def line(self, *more: str) -> list[str]:
        own = [str(self.graph), "--images", str(self.images), "--out", str(self.out)]
        return [*own, "--host", str(self.host), "--cpu", *more]

    def run(self, *more: str) -> int:
        """The command, in this process."""
        return run_many.main(self.line(*more))

    def popen(self, *more: str, pause: str = "0.05") -> subprocess.Popen:
        """The command, in a process of its own."""
        script = hosts.PACK / "workflows" / "run_many.py"
        return subprocess.Popen(
            [sys.executable, str(script), *self.line(*more)],
            stderr=subprocess.PIPE,
            env=os.environ | {"STAND_IN_PAUSE": pause},
        )

    def picture(self, name: str, content: bytes) -> None:
        path = self.images / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def records(self) -> list[dict]:
        text = (self.out / "manifest.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def jobs(self) -> dict[str, dict]:
        """The last record of each job."""
        return {record["job"]: record for record in self.records() if "job" in record}

    def results(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.out.glob("*.png"))}

    def servers(self) -> list[int]:
        """Process ids of every server that was started."""
        return [int(line) for line in (self.host / "started").read_text().split()]


@pytest.fixture
def collection(tmp_path, monkeypatch):
    monkeypatch.setenv("COMFYUI_PYTHON", sys.executable)
    graph, host = tmp_path / "graph.json", tmp_path / "host"
    graph.write_text(json.dumps(GRAPH))
    for folder in ("comfy", "models"):
        (host / folder).mkdir(parents=True)
    shutil.copyfile(stand_in.__file__, host / "main.py")
    made = Collection(graph, tmp_path / "photos", host, tmp_path / "results")
    for number in range(8):
        made.picture(f"{number}.png", f"picture {number}".encode())
    return made
