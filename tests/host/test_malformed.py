"""Every malformed input of a node, in the real host: its clear error, and the host unharmed.

The cases are data in tests/malformed: nodes.py and file_nodes.py.
"""

from __future__ import annotations

import io
import logging
import multiprocessing
import os
import sys
import traceback
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch

from image_to_prompt.projection import (
    ImageToPromptError,
    LoRADelta,
    Projection,
    UNetDeltas,
    save_projection,
)
from image_to_prompt.tests.fixtures import builders
from image_to_prompt.tests.malformed import file_nodes, nodes
from image_to_prompt.tests.malformed.case import check
from image_to_prompt.tests.malformed.stand_ins import Clip, ClipVision

CASES = [*nodes.CASES, *file_nodes.CASES]


class Tools:
    """The three nodes with good inputs for all that a case does not spoil."""

    def __init__(self, host) -> None:
        import folder_paths

        self.classes, self.folder_paths, self.numbers = host.classes, folder_paths, count()
        self.models = Path(folder_paths.models_dir)
        self.projections = self.models / "projections"
        self.projections.mkdir(parents=True, exist_ok=True)
        folder_paths.add_model_folder_path("loras", str(self.models / "loras"), is_default=True)
        self.good_file = self.place("text_encoders", builders.transformers_clip())

    def embed(self, **changes) -> list:
        good = {
            "projection": builders.small_projection(),
            "clip": Clip(),
            "clip_vision": ClipVision(),
            "image": nodes.PICTURE,
            "text": "in the snow",
            "text_weight": 0.6,
            "strength": 1.0,
            "images": "one prompt per image",
            "crop": "center",
        }
        return self._run("ImageToPromptEmbed", {**good, **changes})

    def load(self, **changes):
        good = {"file": self.good_file, "method": "pseudo-inverse", "cutoff": 0.0}
        return self._run("LoadProjection", {**good, **changes})

    def save(self, **changes):
        good = {"projection": builders.small_projection(), "filename_prefix": "good"}
        return self._run("SaveProjection", {**good, **changes})

    def validate(self, file):
        return self.classes["LoadProjection"].validate_inputs(file)

    def place(self, kind: str, content: bytes | dict) -> str:
        """A new file in the first folder of this kind; its name."""
        folder = Path(self.folder_paths.get_folder_paths(kind)[0])
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"placed{next(self.numbers)}.safetensors"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            builders.write(path, content)
        self.folder_paths.filename_list_cache.clear()
        return path.name

    def rename(self, old: str, kind: str, new: str) -> None:
        folder = Path(self.folder_paths.get_folder_paths(kind)[0])
        os.rename(folder / old, folder / new)
        self.folder_paths.filename_list_cache.clear()

    def link_out(self) -> str:
        """A link inside the projections folder to a folder outside it; its name."""
        outside = self.models / "outside"
        outside.mkdir(exist_ok=True)
        link = self.projections / "out"
        if not link.is_symlink():
            link.symlink_to(outside)
        return link.name

    def file_inside(self) -> str:
        save_projection(builders.small_projection(), self.projections / "inside.safetensors")
        return "inside.safetensors"

    def files(self) -> set[Path]:
        return {path for path in self.models.parent.rglob("*") if path.is_file()}

    def _run(self, node: str, inputs: dict):
        with torch.inference_mode():
            result = self.classes[node].execute(**inputs).result
        return result[0] if result else None


@pytest.fixture(scope="module")
def tools(host):
    return Tools(host)


@pytest.fixture(scope="module")
def expected(tools):
    return tools.embed()[0][0]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_malformed_input_is_explained_and_the_host_unharmed(case, tools, expected):
    check(case, tools)
    assert torch.equal(tools.embed()[0][0], expected)
    assert tools.validate(tools.good_file) is True
    assert tools.load().kept == builders.small_projection().kept


SAVES = [case for case in CASES if case.name.startswith("save:")]


@pytest.mark.parametrize("case", SAVES, ids=str)
def test_a_refused_save_leaves_no_file_anywhere(case, tools):
    tools.file_inside()
    before = tools.files()
    check(case, tools)
    assert tools.files() == before


def test_a_good_save_is_inside_the_folder_and_overwrites_nothing(tools):
    before = tools.files()
    for _ in range(2):
        tools.save(filename_prefix="sub/good")
    new = tools.files() - before
    assert len(new) == 2
    assert {path.parent for path in new} == {tools.projections / "sub"}


@pytest.mark.parametrize("name", ["gone.safetensors", "", "../x"])
def test_a_fingerprint_of_a_missing_file_does_not_raise(tools, name):
    node = tools.classes["LoadProjection"]
    assert isinstance(node.fingerprint_inputs(file=name, method="ridge", cutoff=0.0), str)


def test_a_fingerprint_changes_with_the_file_only(tools):
    node = tools.classes["LoadProjection"]
    first = node.fingerprint_inputs(file=tools.good_file, method="ridge", cutoff=0.0)
    assert node.fingerprint_inputs(file=tools.good_file, method="ridge", cutoff=0.0) == first
    changed = tools.place("text_encoders", builders.transformers_clip(vision=40))
    assert node.fingerprint_inputs(file=changed, method="ridge", cutoff=0.0) != first


OVERWRITING = ("styles/", "sub/styles/", "x/./", "x/.", "a/b/../c/", "a//b", "b\\\\", "%year%/y/")


@pytest.mark.parametrize("prefix", OVERWRITING)
@pytest.mark.parametrize("lora", [False, True])
def test_no_prefix_makes_a_save_replace_a_file(tools, prefix, lora):
    projection = with_change() if lora else builders.small_projection()
    before = {path: path.read_bytes() for path in tools.files()}
    for _ in range(3):
        tools.save(projection=projection, filename_prefix=prefix, save_lora=lora)
    after = {path: path.read_bytes() for path in tools.files()}
    assert {path: after.get(path) for path in before} == before
    new = sorted(after.keys() - before.keys())
    assert len(new) == (6 if lora else 3)
    assert all(path.name.endswith("_.safetensors") and path.name[0] not in "_." for path in new)


def test_processes_that_share_a_folder_keep_every_save(tools):
    context = multiprocessing.get_context("fork")
    start, results = context.Event(), context.Queue()
    workers = [
        context.Process(target=_save_many, args=(tools, start, results)) for _ in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    start.set()
    told = [name for _ in workers for name in results.get(timeout=120)]
    for worker in workers:
        worker.join()
    kept = [path for path in tools.files() if "shared" in path.name]
    assert len(told) == len(set(told)) == 2 * SAVES_EACH * PROCESSES
    assert sorted(map(str, kept)) == sorted(told)


PROCESSES, SAVES_EACH = 4, 15


def _save_many(tools, start, results) -> None:
    torch.set_num_threads(1)
    node, projection = tools.classes["SaveProjection"], with_change()
    start.wait()
    told = []
    for _ in range(SAVES_EACH):
        out = node.execute(projection=projection, filename_prefix="s/shared", save_lora=True)
        told += out.ui.as_dict()["text"][0].splitlines()
    results.put(told)


def with_change() -> Projection:
    """A projection that changes a model, so that it can be saved as a LoRA."""
    name = "input_blocks.1.1.transformer_blocks.0.attn2.to_k"
    change = UNetDeltas({name: LoRADelta(torch.ones(2, 32), torch.ones(8, 2))})
    return replace(builders.small_projection(), cross_attention=change)


def test_where_the_lora_cannot_be_written_the_projection_goes_again(tools, monkeypatch):
    from image_to_prompt.nodes import load_save

    def full(*_):
        raise OSError(28, "No space left on device")

    before = tools.files()
    monkeypatch.setattr(load_save, "write_new_tensors", full)
    with pytest.raises(ImageToPromptError, match="No space left"):
        tools.save(projection=with_change(), filename_prefix="both", save_lora=True)
    assert tools.files() == before


@pytest.fixture
def strict_log():
    """A log that ends a program with what it cannot write, as newer hosts' does."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict")
    handler = logging.StreamHandler(stream)
    handler.handleError = _fail
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield root
    root.removeHandler(handler)
    root.setLevel(level)


def _fail(record):
    raise


@pytest.mark.skipif(sys.platform != "linux", reason="needs file names of any bytes")
@pytest.mark.parametrize("content", ["a CLIP file", "a web page", "nothing there", "two folders"])
def test_a_file_name_that_is_not_utf8_never_ends_the_host(tools, strict_log, content):
    name = os.fsdecode(b"mod\xe8le " + content.encode() + b".safetensors")
    if content != "nothing there":
        data = b"<html>" if content == "a web page" else builders.transformers_clip()
        tools.rename(tools.place("text_encoders", data), "text_encoders", name)
    if content == "two folders":
        tools.rename(tools.place("clip_vision", builders.vision_only()), "clip_vision", name)
    node = tools.classes["LoadProjection"]
    str(node.validate_inputs(file=name)).encode()
    node.fingerprint_inputs(file=name, method="ridge", cutoff=0.0).encode()
    try:
        assert tools.load(file=name).kept == builders.small_projection().kept
        assert content in ("a CLIP file", "two folders")
    except ImageToPromptError as error:
        assert content in ("a web page", "nothing there")
        # As the host logs it.
        strict_log.error("!!! Exception during processing !!! %s", error)
        strict_log.error(traceback.format_exc())


def test_every_case_of_a_node_has_a_name_of_its_own():
    names = [case.name for case in CASES]
    assert sorted(set(names)) == sorted(names)
