"""Translations name the nodes' own sockets, all of them and no others."""

from __future__ import annotations

import json

import pytest

from image_to_prompt.tests.host.small_models import ROOT

FILES = sorted((ROOT / "locales").glob("*/nodeDefs.json"))


def test_there_are_translations():
    assert {path.parent.name for path in FILES} >= {"de", "zh"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_every_socket_of_every_node_is_translated(host, path):
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
        for socket in [*schema.inputs, *schema.outputs]:
            assert len(socket.tooltip) > 15, f"{schema.node_id}: {socket}"
        assert all(output.display_name for output in schema.outputs)
