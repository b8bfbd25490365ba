"""Every malformed input of a node, in the real host: its clear error, and the host unharmed.

The cases are data in tests/malformed: nodes.py and file_nodes.py.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest
import torch

from image_to_prompt.projection import save_projection
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


def test_every_case_of_a_node_has_a_name_of_its_own():
    names = [case.name for case in CASES]
    assert sorted(set(names)) == sorted(names)
