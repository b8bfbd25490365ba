"""The headless runner on a real server: every workflow to a PNG, and what is said if it fails.

Files are the miniature's, at SD 1.5's shapes. One server for all of it; nothing may be written
into the host's folder.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from image_to_prompt.projection import load_file, save_projection
from image_to_prompt.workflows import run
from image_to_prompt.workflows.api_client import client, events
from image_to_prompt.workflows.api_client.inputs import nodes_of, with_inputs
from image_to_prompt.workflows.authoring import build
from image_to_prompt.workflows.authoring.node_specs import NODE_SPECS
from image_to_prompt.workflows.comfyui import hosts, server
from image_to_prompt.workflows.demo_parts import miniature

STEPS = 2
APIS = {path.stem: path for path in build.files() if path.parent.name == "api"}
SIZES = {name: (96, 64) if name == "two_regions" else (64, 64) for name in APIS}
FOLDER = "LoadImageDataSetFromFolder"
# What trains is cut short: these workflows are to run, not to learn.
SHORT = {"OnlineRefine.steps": 1, "FitProjection.epochs": 1, "FitProjection.held_out": 0.0}
LISTED = ("main.py", "comfy", "custom_nodes", "input", "models", "output", "temp", "user")


def listing(folder: Path) -> set[tuple[str, float]]:
    """Files of a host that a run could touch, with their times of change."""
    files = (file for name in LISTED for file in [folder / name, *(folder / name).rglob("*")])
    return {
        (str(file), file.stat().st_mtime)
        for file in files
        if file.is_file() and "__pycache__" not in file.parts
    }


@pytest.fixture(scope="module")
def found(host_path):
    return hosts.host_in(host_path)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The folder of the running host, with its models, input and output."""
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def served(found, base):
    """A running host: its address, and the settings that name the miniature's files."""
    checkpoint, clip = miniature.wide_files(miniature.weights())
    settings = {
        "checkpoint": server.place(base, "checkpoints", checkpoint),
        "clip_vision": server.place(base, "clip_vision", clip),
        "projection_file": clip.name,
        "steps": STEPS,
        "seed": 1,
    }
    folder = base / "input" / NODE_SPECS[FOLDER].widgets["folder"]
    folder.mkdir(parents=True)
    for width in (64, 72):  # a folder of pictures has several sizes
        Image.linear_gradient("L").resize((width, 64)).save(folder / f"{width}.png")
    before = listing(found.folder)
    with server.start(found, base) as url:
        yield url, settings
    assert listing(found.folder) == before, "the host's own folder was written to"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return [ref.path for ref in miniature.world_pictures(tmp_path_factory.mktemp("pictures"))]


def workflow(name: str) -> dict:
    return json.loads(build.files()[APIS[name]])


def with_older_folder_loader(graph: dict) -> None:
    """What the workflow's note says for older hosts."""
    for node in graph.values():
        if node["class_type"] == FOLDER:
            node["class_type"] = "LoadImageSetFromFolderNode"
            node["inputs"]["resize_method"] = "Stretch"


def prepared(name: str, served) -> tuple[dict, dict]:
    """A workflow that this host can run, and the settings that make it small and short."""
    url, settings = served
    graph = workflow(name)
    if not server.get_json(f"{url}/object_info/{FOLDER}"):
        with_older_folder_loader(graph)
    used = {node["class_type"] for node in graph.values()}
    short = {key: n for key, n in SHORT.items() if key.split(".")[0] in used}
    width, height = SIZES[name]
    return graph, settings | short | {"width": width, "height": height}


@pytest.mark.parametrize("name", APIS)
def test_a_workflow_runs_to_a_png(name, served, pictures, tmp_path):
    url, _ = served
    graph, settings = prepared(name, served)
    width, height = SIZES[name]
    steps = []
    [path] = run.run_workflow(
        url,
        graph,
        tmp_path,
        pictures[: len(nodes_of(graph, "LoadImage"))],
        settings=settings,
        progress=lambda number, done, of: steps.append((graph[number]["class_type"], done, of)),
    )
    picture = Image.open(path)
    assert (picture.format, picture.size) == ("PNG", (width, height))
    assert len(picture.getcolors(width * height)) > 1
    assert ("KSampler", STEPS, STEPS) in steps


# --- what is done again -----------------------------------------------------------------------


def worked(url: str, graph: dict) -> set[str]:
    """Runs a graph; the class names of the nodes that did work, and were not cached."""
    [cached] = [
        set(data["nodes"])
        for event, data in client.run(url, graph)["status"]["messages"]
        if event == "execution_cached"
    ]
    assert cached <= graph.keys()
    return {node["class_type"] for number, node in graph.items() if number not in cached}


@pytest.mark.parametrize("name", APIS)
def test_a_second_run_with_unchanged_inputs_does_no_work(name, served, pictures):
    url, _ = served
    graph, settings = prepared(name, served)
    images = [client.upload(url, path) for path in pictures[: len(nodes_of(graph, "LoadImage"))]]
    # A seed of its own, so that the first run works even if another test ran this graph.
    filled = with_inputs(graph, images, (), settings | {"seed": 7})
    assert {"KSampler", "VAEDecode", "SaveImage"} <= worked(url, filled)
    assert worked(url, filled) == set()


def test_a_changed_text_redoes_only_what_hangs_on_it(served, pictures):
    url, settings = served
    image = client.upload(url, pictures[0])
    own = settings | {"width": 64, "height": 64, "seed": 8}
    worked(url, with_inputs(workflow("edit"), [image], ["in the snow"], own))
    again = worked(url, with_inputs(workflow("edit"), [image], ["at night"], own))
    assert again == {"ImageToPromptEmbed", "KSampler", "VAEDecode", "SaveImage"}


def test_a_changed_projection_file_is_loaded_again_and_an_equal_one_is_not(served, base):
    url, settings = served
    clip = base / "models" / "clip_vision" / settings["projection_file"]
    folder = base / "models" / "projections"
    folder.mkdir(exist_ok=True)
    save_projection(load_file(clip), folder / "mine.safetensors")
    graph = {
        "1": {
            "class_type": "LoadProjection",
            "inputs": {"file": "mine.safetensors", "method": "pseudo-inverse", "cutoff": 0.0},
        },
        "2": {
            "class_type": "SaveProjection",
            "inputs": {"projection": ["1", 0], "filename_prefix": "again"},
        },
    }
    assert worked(url, graph) == {"LoadProjection", "SaveProjection"}
    save_projection(load_file(clip), folder / "mine.safetensors")
    assert worked(url, graph) == set(), "written anew, with the same content"
    changed = load_file(clip, method="ridge")
    save_projection(changed, folder / "mine.safetensors")
    assert worked(url, graph) == {"LoadProjection", "SaveProjection"}
    saved = sorted(folder.glob("again_*"))
    assert [load_file(path).method for path in saved] == ["pseudo-inverse", "ridge"]
    assert torch.equal(load_file(saved[1]).matrix, changed.matrix)


# --- how the runner behaves -------------------------------------------------------------------


def test_without_a_socket_library_the_run_is_polled(served, pictures, tmp_path, monkeypatch):
    url, settings = served
    monkeypatch.setattr(events, "websocket", None)
    small = settings | {"width": 64, "height": 64}
    [path] = run.run_workflow(url, workflow("variation"), tmp_path, pictures[:1], settings=small)
    assert Image.open(path).size == (64, 64)


def test_a_refused_value_is_told_with_its_node(served, pictures, tmp_path):
    url, settings = served
    bad = settings | {"checkpoint": "absent.safetensors"}
    with pytest.raises(client.RunError, match=r"CheckpointLoaderSimple.*absent\.safetensors"):
        run.run_workflow(url, workflow("variation"), tmp_path, pictures[:1], settings=bad)


def test_an_absent_projection_file_is_told_with_what_to_do(served, pictures, tmp_path):
    url, settings = served
    bad = settings | {"projection_file": "absent.safetensors"}
    with pytest.raises(client.RunError, match=r"LoadProjection.*absent\.safetensors.*Place") as e:
        run.run_workflow(url, workflow("variation"), tmp_path, pictures[:1], settings=bad)
    assert "clip-vit-large-patch14" in str(e.value)


def test_a_failing_node_is_told_in_its_own_words(served, pictures, tmp_path):
    url, settings = served
    bad = settings | {"ImageToPromptEmbed.image_weights": "one, two"}
    with pytest.raises(client.RunError, match=r"node \d+ \(ImageToPromptEmbed\)") as error:
        run.run_workflow(url, workflow("several_references"), tmp_path, pictures[:2], settings=bad)
    assert "numbers separated by commas" in str(error.value)
    assert "Correct image_weights" in str(error.value)


def command(url: str, settings: dict, pictures: list[Path], *more: str) -> list[str]:
    script = hosts.PACK / "workflows" / "run.py"
    api = hosts.PACK / "workflows" / "api" / "variation.json"
    line = [sys.executable, str(script), str(api), "--server", url, "--image", str(pictures[0])]
    for name in ("checkpoint", "clip_vision", "projection_file"):
        line += [f"--{name.replace('_', '-')}", settings[name]]
    return [*line, "--width", "64", "--height", "64", *more]


def test_the_command_saves_a_picture_and_prints_its_place(served, pictures, tmp_path):
    url, settings = served
    line = command(url, settings, pictures, "--steps", "1", "--out", str(tmp_path))
    done = subprocess.run(line, capture_output=True, text=True, timeout=500, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Image.open(done.stdout.strip()).format == "PNG"
    assert Path(done.stdout.strip()).parent == tmp_path
    assert "KSampler" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal to send")
@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["control-c", "sigterm"]
)
def test_a_signal_ends_the_servers_run_too(sent, code, served, pictures, tmp_path):
    url, settings = served
    line = command(url, settings, pictures, "--steps", "5000", "--out", str(tmp_path))
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    for text in process.stderr:
        if "KSampler" in text:
            break
    process.send_signal(sent)
    assert process.wait(60) == code
    deadline = time.monotonic() + 120  # the step it is in is finished first
    while server.get_json(f"{url}/queue")["queue_running"]:
        assert time.monotonic() < deadline, "the server still runs it"
        time.sleep(0.5)


def test_a_run_stopped_from_elsewhere_is_said(served, pictures, tmp_path):
    url, settings = served
    sampling = threading.Event()

    def stop() -> None:
        sampling.wait(500)
        client.interrupt(url, server.get_json(f"{url}/queue")["queue_running"][0][1])

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(client.RunError, match="interrupted on the server at node"):
        run.run_workflow(
            url,
            workflow("variation"),
            tmp_path,
            pictures[:1],
            settings=settings | {"steps": 5000, "width": 64, "height": 64},
            progress=lambda number, done, of: of and sampling.set(),
        )


def test_a_host_that_dies_is_shown_with_the_end_of_its_log(found, tmp_path):
    with (
        pytest.raises(hosts.HostError, match=r"ended with exit code[\s\S]*no-such-flag"),
        server.start(found, tmp_path, flags=["--no-such-flag"]),
    ):
        pass


def test_a_host_is_gone_after_the_block_even_if_the_block_fails(found, tmp_path):
    with pytest.raises(ZeroDivisionError), server.start(found, tmp_path) as url:
        _ = 1 / 0
    with pytest.raises(client.RunError, match="refused"):
        server.get_json(f"{url}/system_stats", seconds=2)
