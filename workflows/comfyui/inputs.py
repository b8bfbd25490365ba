"""Puts pictures, texts and numbers into an API graph, by node class and input name."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence

# What a setting of the runner stands for.
SETTINGS: Mapping[str, str] = {
    "seed": "KSampler.seed",
    "steps": "KSampler.steps",
    "cfg": "KSampler.cfg",
    "width": "EmptyLatentImage.width",
    "height": "EmptyLatentImage.height",
    "negative": "CLIPTextEncode.text",
    "text_weight": "ImageToPromptEmbed.text_weight",
    "strength": "ImageToPromptEmbed.strength",
    "checkpoint": "CheckpointLoaderSimple.ckpt_name",
    "clip_vision": "CLIPVisionLoader.clip_name",
    "projection_file": "LoadProjection.file",
}


class FillError(ValueError):
    """The graph has no place for what was given. The message is printable, whatever it quotes."""

    def __init__(self, message: str) -> None:
        shown = (char if char.isprintable() else ascii(char)[1:-1] for char in message[:900])
        super().__init__("".join(shown))


def fill(
    graph: dict,
    images: Sequence[str] = (),
    texts: Sequence[str] = (),
    settings: Mapping[str, object] | None = None,
) -> dict:
    """A copy of an API graph with these values in it.

    images: names in the server's input folder, one for each LoadImage node, in the order of
    node numbers. texts: for the ImageToPromptEmbed nodes, in the same order; fewer leave the
    rest as they are. An OnlineRefine node that keeps texts keeps these. settings: values by a name
    of SETTINGS or by 'Class.input', for every node of that class, or by 'number.input' for one
    node. Raises FillError.
    """
    graph = copy.deepcopy(graph)
    loaders = nodes_of(graph, "LoadImage")
    if images and len(images) != len(loaders):
        raise FillError(f"expected {len(loaders)} pictures, one per LoadImage; got {len(images)}")
    embeds = nodes_of(graph, "ImageToPromptEmbed")
    if len(texts) > len(embeds):
        raise FillError(f"expected at most {len(embeds)} texts; got {len(texts)}")
    for number, image in zip(loaders, images, strict=False):
        graph[number]["inputs"]["image"] = image
    for number, text in zip(embeds, texts, strict=False):
        graph[number]["inputs"]["text"] = text
    for number in nodes_of(graph, "OnlineRefine"):
        if texts and graph[number]["inputs"].get("keep_texts"):
            graph[number]["inputs"]["keep_texts"] = "\n".join(texts)
    for name, value in (settings or {}).items():
        _set(graph, SETTINGS.get(name, name), value)
    return graph


def nodes_of(graph: dict, class_type: str) -> list[str]:
    """Numbers of the nodes of a class, in numerical order where they are numbers."""
    found = [number for number, node in graph.items() if node.get("class_type") == class_type]
    return sorted(found, key=lambda number: (not number.isdigit(), len(number), number))


def parsed(text: str) -> tuple[str, object]:
    """'5.strength=0.8' as ('5.strength', 0.8); what is not JSON is taken as text."""
    name, equals, value = text.partition("=")
    if not equals or "." not in name:
        raise FillError(f"expected NODE.INPUT=VALUE; got {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _set(graph: dict, place: str, value: object) -> None:
    owner, _, name = place.rpartition(".")
    numbers = [owner] if owner in graph else nodes_of(graph, owner)
    numbers = [number for number in numbers if _is_widget(graph[number], name)]
    if not numbers:
        raise FillError(f"the graph has no value {place} (a link cannot be replaced)")
    for number in numbers:
        graph[number]["inputs"][name] = value


def _is_widget(node: dict, name: str) -> bool:
    return not isinstance(node["inputs"].get(name, []), list)
