"""The workflow files: in step with their source, and complete for the page."""

import json
from pathlib import Path

import pytest

from image_to_prompt.workflows.authoring import build
from image_to_prompt.workflows.authoring.format.graph import Graph
from image_to_prompt.workflows.authoring.node_specs import NODE_SPECS, OURS

FOLDER = build.HERE
PAGES = sorted(path for path in build.files() if path.parent == Path("."))
APIS = sorted(path for path in build.files() if path.parent == Path("api"))


def load(path):
    return json.loads((FOLDER / path).read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", build.files(), ids=str)
def test_a_committed_file_is_what_its_source_gives(path):
    text = (FOLDER / path).read_text(encoding="utf-8")
    assert text == build.files()[path], "run: python workflows/authoring build"
    assert text.isascii()


def test_no_other_json_is_shown_as_a_template():
    found = [path.relative_to(FOLDER) for path in FOLDER.rglob("*.json")]
    assert sorted(found) == sorted(build.files())


@pytest.mark.parametrize("path", PAGES, ids=str)
def test_a_page_has_a_note_and_says_where_each_file_goes(path):
    nodes = load(path)["nodes"]
    notes = [node for node in nodes if node["type"] == "MarkdownNote"]
    assert len(notes) == 1
    files = [f for node in nodes for f in node["properties"].get("models", [])]
    assert {file["directory"] for file in files} == {"checkpoints", "clip_vision"}
    for file in files:
        assert file["url"].startswith("https://huggingface.co/")
        assert file["url"].endswith("/" + file["name"])
        assert file["name"] in notes[0]["widgets_values"][0]
        assert f"models/{file['directory']}" in notes[0]["widgets_values"][0]


@pytest.mark.parametrize("path", PAGES, ids=str)
def test_a_page_says_which_pack_each_node_comes_from_and_keeps_default_titles(path):
    for node in load(path)["nodes"]:
        assert "title" not in node
        if node["type"] != "MarkdownNote":
            assert node["properties"]["cnr_id"] == NODE_SPECS[node["type"]].pack
    assert any(node["properties"].get("cnr_id") == OURS for node in load(path)["nodes"])


@pytest.mark.parametrize("path", PAGES, ids=str)
def test_nodes_of_a_page_do_not_overlap(path):
    boxes = [(*node["pos"], *node["size"], node["type"]) for node in load(path)["nodes"]]
    title = 30  # drawn above the position
    for i, (x, y, w, h, name) in enumerate(boxes):
        for u, v, s, t, other in boxes[:i]:
            apart = x >= u + s or u >= x + w or y - title >= v + t or v - title >= y + h
            assert apart, f"{name} at {x, y} overlaps {other} at {u, v}"


@pytest.mark.parametrize("path", APIS, ids=str)
def test_an_api_graph_links_only_to_outputs_that_exist(path):
    graph = load(path)
    for node in graph.values():
        for value in node["inputs"].values():
            if isinstance(value, list):
                source, slot = value
                assert slot < len(NODE_SPECS[graph[source]["class_type"]].outputs)
    assert sum(node["class_type"] == "SaveImage" for node in graph.values()) == 1


@pytest.mark.parametrize(
    "inputs", [{}, {"clip": 3}, {"clip": None, "text": ""}, {"wrong": 1}], ids=str
)
def test_a_graph_refuses_a_node_without_its_links_or_with_unknown_inputs(inputs):
    with pytest.raises(ValueError, match="CLIPTextEncode: expected"):
        Graph().add("CLIPTextEncode", (0, 0), **inputs)
