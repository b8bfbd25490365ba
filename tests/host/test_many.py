"""A collection on two real servers: the same pictures as single runs, bit for bit.

The checkpoint is the miniature's. One server is killed in the middle of the run.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from image_to_prompt.workflows import run
from image_to_prompt.workflows.comfyui import hosts, server
from image_to_prompt.workflows.demo_parts import miniature
from image_to_prompt.workflows.many.jobs import seed_of

API = hosts.PACK / "workflows" / "api" / "variation.json"
PICTURES = 4
SMALL = {"steps": 2, "width": 64, "height": 64}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder of models that holds the miniature, and the settings that name its files."""
    checkpoint, clip = miniature.wide_files(miniature.weights())
    folder = tmp_path_factory.mktemp("models")
    for kind, file in (("checkpoints", checkpoint), ("clip_vision", clip)):
        (folder / kind).mkdir()
        (folder / kind / file.name).symlink_to(file)
    names = {"checkpoint": checkpoint.name, "clip_vision": clip.name, "projection_file": clip.name}
    return folder, SMALL | names


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    miniature.training_pictures(folder, PICTURES)
    return folder


@pytest.fixture
def line(models, pictures, host_path, tmp_path):
    folder, settings = models
    options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    own = [str(API), "--images", str(pictures), "--out", str(tmp_path / "results"), *options]
    return [*own, "--host", str(host_path), "--models", str(folder), "--cpu", "--threads", "1"]


def children(pid: int) -> list[int]:
    """Process ids below a process, with those below them."""
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True)
    own = [int(number) for number in found.stdout.split()]
    return own + [below for child in own for below in children(child)]


def servers(pid: int) -> list[int]:
    """The servers themselves, below their guards."""
    found = []
    for child in children(pid):
        words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        if b"main.py" in words[:3]:
            found.append(child)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the servers in /proc")
def test_a_collection_with_a_killed_server_equals_single_runs(
    line, models, pictures, host_path, tmp_path
):
    script = hosts.PACK / "workflows" / "run_many.py"
    command = [sys.executable, str(script), *line, "--workers", "2", "--verbose"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        for told in process.stderr:
            if told.startswith("worker"):
                break
        os.kill(servers(process.pid)[0], signal.SIGKILL)
        told = process.stderr.read()
        assert process.wait(240) == 0, told
    finally:
        process.kill()
    lines = (tmp_path / "results" / "manifest.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    killed = [record for record in records if record.get("attempts")]
    assert [record["attempts"][0]["kind"] for record in killed] == ["kills the server"]

    folder, settings = models
    host = hosts.host_in(host_path)
    alone = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with server.start(host, tmp_path / "base", [folder], environment=alone) as url:
        for picture in sorted(pictures.iterdir()):
            own = settings | {"seed": seed_of(picture.name)}
            graph = run.load_workflow(API)
            [single] = run.run_workflow(url, graph, tmp_path / "single", [picture], settings=own)
            many = tmp_path / "results" / picture.name
            assert many.read_bytes() == single.read_bytes(), picture.name
    assert len(list((tmp_path / "results").glob("*.png"))) == PICTURES
