"""A model file whose name is not UTF-8, chosen over a server's API: one error, and it goes on."""

from __future__ import annotations

import os
import sys
import time
import urllib.request

import pytest

from image_to_prompt.tests.fixtures import builders
from image_to_prompt.workflows.api_client import client
from image_to_prompt.workflows.comfyui import hosts, server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs file names of any bytes")
NAME = os.fsdecode(b"mod\xe8le.safetensors")


@pytest.fixture(scope="module")
def served(host_path, tmp_path_factory):
    """A running host: its address and its folder. Its models are such a file and a good one."""
    base = tmp_path_factory.mktemp("named")
    folder = base / "models" / "text_encoders"
    folder.mkdir(parents=True)
    builders.write(folder / "good.safetensors", builders.transformers_clip())
    (folder / NAME).write_bytes(b"<html>")
    with server.start(hosts.host_in(host_path), base) as url:
        yield url, base


def graph(file: str) -> dict:
    load = {"file": file, "method": "pseudo-inverse", "cutoff": 0.0}
    save = {"projection": ["1", 0], "filename_prefix": "after"}
    return {
        "1": {"class_type": "LoadProjection", "inputs": load},
        "2": {"class_type": "SaveProjection", "inputs": save},
    }


def test_the_prompt_ends_with_one_error_and_the_next_one_runs(served):
    url, base = served
    began = (base / "comfyui.log").stat().st_size
    for tried in range(2):
        with pytest.raises(client.RunError, match=r"LoadProjection.*mod.*le\.safetensors") as told:
            client.run(url, graph(NAME), check=_patience(60))
        str(told.value).encode()
        assert str(told.value).count("Expected") == 1
        client.run(url, graph("good.safetensors") | _seed(tried), check=_patience(60))
        assert len(list((base / "models" / "projections").glob("after_*"))) == tried + 1
    log = (base / "comfyui.log").read_bytes()[began:].decode(errors="strict")
    assert "UnicodeEncodeError" not in log


def test_the_server_lists_its_models_all_the_same(served):
    url, _ = served
    with urllib.request.urlopen(f"{url}/object_info/LoadProjection", timeout=60) as answer:
        assert b"good.safetensors" in answer.read()


def _seed(number: int) -> dict:
    """A graph's part that makes it differ from the one before, so that nothing is cached."""
    save = {"projection": ["1", 0], "filename_prefix": f"after_{number}"}
    return {"2": {"class_type": "SaveProjection", "inputs": save}}


def _patience(seconds: float):
    """Raises TimeoutError, where a dead queue would let the prompt wait for ever."""
    end = time.monotonic() + seconds

    def check() -> None:
        if time.monotonic() > end:
            raise TimeoutError("the prompt has not ended")

    return check
