"""Translations and help pages name the nodes' own inputs, all of them and no others."""

from __future__ import annotations

import json
import re

import pytest

from image_to_prompt.tests.host.small_models import ROOT

FILES = sorted((ROOT / "locales").glob("*/nodeDefs.json"))
PAGES = ROOT / "nodes" / "web" / "docs"
# What saved graphs rely on.
NODE_IDS = {
    "ApplyProjection",
    "FitProjection",
    "ImageToPromptBlocks",
    "ImageToPromptEmbed",
    "ImageToPromptLayout",
    "ImageToPromptLoadPrompt",
    "ImageToPromptMix",
    "ImageToPromptSavePrompt",
    "LoadProjection",
    "OnlineRefine",
    "SaveProjection",
}


def test_the_node_ids_that_saved_graphs_rely_on_are_there(host):
    assert host.classes.keys() >= NODE_IDS


def test_there_are_translations():
    assert {path.parent.name for path in FILES} >= {"de", "zh"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_every_input_and_output_of_every_node_is_translated(host, path):
    words = json.loads(path.read_text(encoding="utf-8"))
    assert words.keys() == host.classes.keys()
    for node_id, node in host.classes.items():
        schema = node.define_schema()
        translated = words[node_id]
        assert translated["display_name"] and translated["description"]
        assert translated["inputs"].keys() == {socket.id for socket in schema.inputs}
        outputs = {str(index) for index in range(len(schema.outputs))}
        assert translated.get("outputs", {}).keys() == outputs
        for socket in [*translated["inputs"].values(), *translated.get("outputs", {}).values()]:
            assert socket["name"] and socket["tooltip"]


def test_every_node_input_and_output_explains_itself(host):
    for node in host.classes.values():
        schema = node.define_schema()
        assert len(schema.description) > 40
        assert schema.display_name and schema.category
        for socket in [*schema.inputs, *schema.outputs]:
            assert len(socket.tooltip) > 15, f"{schema.node_id}: {socket}"
        assert all(output.display_name for output in schema.outputs)


def test_the_help_page_of_every_node_has_a_row_for_each_of_its_inputs(host):
    assert {page.stem for page in PAGES.glob("*.md")} == host.classes.keys()
    for node_id, node in host.classes.items():
        page = (PAGES / f"{node_id}.md").read_text(encoding="utf-8")
        rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
        named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
        inputs = [socket.id for socket in node.define_schema().inputs]
        assert sorted(named) == sorted(inputs), node_id


def test_the_help_of_every_node_names_every_option(host):
    """Options are never translated: a reader finds in the help what the node shows."""
    for node_id, node in host.classes.items():
        page = help_of(node_id)
        for socket in node.define_schema().inputs:
            options = () if socket.id == "file" else getattr(socket, "options", None) or ()
            missing = [option for option in options if option not in page]
            assert not missing, f"{node_id}.{socket.id}"


def help_of(node_id: str) -> str:
    """A node's page, and the pages that it refers to by "As on **Another Node**"."""
    page = (PAGES / f"{node_id}.md").read_text(encoding="utf-8")
    others = {title.replace(" ", "") for title in re.findall(r"As on \*\*([\w ]+)\*\*", page)}
    return page + "".join(help_of(other) for other in others)
