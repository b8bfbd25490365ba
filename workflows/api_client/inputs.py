"""Puts pictures, texts and numbers into an API graph, by node and input name."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence

# The nodes that make a prompt of pictures and a text.
PROMPT_NODES = ("ImageToPromptEmbed", "ImageToPromptMix", "ImageToPromptLayout")

# What a setting of the runner stands for: all of these values that a graph has.
SETTINGS: Mapping[str, tuple[str, ...]] = {
    "seed": ("KSampler.seed",),
    "steps": ("KSampler.steps",),
    "cfg": ("KSampler.cfg",),
    "width": ("EmptyLatentImage.width",),
    "height": ("EmptyLatentImage.height",),
    "negative": ("CLIPTextEncode.text",),
    "text_weight": tuple(f"{node}.text_weight" for node in PROMPT_NODES),
    "strength": tuple(f"{node}.strength" for node in PROMPT_NODES),
    "checkpoint": ("CheckpointLoaderSimple.ckpt_name",),
    "clip_vision": ("CLIPVisionLoader.clip_name",),
    "projection_file": ("LoadProjection.file",),
}


class InputsError(ValueError):
    """The graph has no place for what was given. The message is printable, whatever it quotes."""

    def __init__(self, message: str) -> None:
        shown = (char if char.isprintable() else ascii(char)[1:-1] for char in message[:900])
        super().__init__("".join(shown))


def with_inputs(
    graph: dict,
    images: Sequence[str] = (),
    texts: Sequence[str] = (),
    settings: Mapping[str, object] | None = None,
) -> dict:
    """A copy of an API graph with these values in it.

    images: names in the server's input folder, one for each LoadImage node, in the order of
    node ids. texts: for the nodes of PROMPT_NODES, in the same order; fewer leave the rest
    as they are. An OnlineRefine node that keeps texts keeps these. settings: values by a name
    of SETTINGS or by 'node.input', where the node is an id, or a class or a title and then every
    node of it. Raises InputsError.
    """
    graph = copy.deepcopy(graph)
    loaders = nodes_of(graph, "LoadImage")
    if images and len(images) != len(loaders):
        raise InputsError(f"expected {len(loaders)} pictures, one per LoadImage; got {len(images)}")
    prompts = nodes_of(graph, *PROMPT_NODES)
    if len(texts) > len(prompts):
        raise InputsError(f"expected at most {len(prompts)} texts; got {len(texts)}")
    for number, image in zip(loaders, images, strict=False):
        graph[number]["inputs"]["image"] = image
    for number, text in zip(prompts, texts, strict=False):
        graph[number]["inputs"]["text"] = text
    for number in nodes_of(graph, "OnlineRefine"):
        if texts and graph[number]["inputs"].get("keep_texts"):
            graph[number]["inputs"]["keep_texts"] = "\n".join(texts)
    for name, value in (settings or {}).items():
        places = SETTINGS.get(name, (name,))
        found = [widget for place in places for widget in _widgets(graph, place)]
        if not found:
            named = " or ".join(places)
            raise InputsError(f"the graph has no value {named} (a link cannot be replaced)")
        for number, widget in found:
            graph[number]["inputs"][widget] = value
    return graph


def nodes_of(graph: dict, *classes: str) -> list[str]:
    """Ids of the nodes of these classes, in the order of `node_order`."""
    found = [number for number, node in graph.items() if node.get("class_type") in classes]
    return sorted(found, key=node_order)


def node_order(number: str) -> list[tuple[bool, int, str]]:
    """Sorts ids as numbers where they are numbers ('9', '10', '57:9'), then by their letters."""
    parts = ((part, part.isascii() and part.isdigit()) for part in number.split(":"))
    return [(not digits, len(part.lstrip("0")) if digits else 0, part) for part, digits in parts]


def parsed(text: str, graph: dict) -> tuple[str, object]:
    """'5.strength=0.8' as ('5.strength', 0.8); what is not JSON is taken as text.

    The graph decides where the name ends, since a title may hold dots and equals signs too.
    """
    splits = [text[:at] for at, letter in enumerate(text) if letter == "=" and "." in text[:at]]
    if not splits:
        raise InputsError(f"expected NODE.INPUT=VALUE; got {text!r}")
    name = next((place for place in splits if any(_widgets(graph, place))), splits[0])
    value = text[len(name) + 1 :]
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value


def _widgets(graph: dict, place: str) -> Iterator[tuple[str, str]]:
    """Node ids and input names that a place stands for: by id, else by class, else by title."""
    dots = [at for at, letter in enumerate(place) if letter == "."]
    names = [(place[:at], place[at + 1 :]) for at in reversed(dots)]
    for matches in (_has_id, _has_class, _has_title):
        for owner, widget in names:
            found = [
                number
                for number, node in graph.items()
                if matches(number, node, owner) and _is_widget(node, widget, graph)
            ]
            if found:
                yield from ((number, widget) for number in found)
                return


def _has_id(number: str, _: dict, owner: str) -> bool:
    return number == owner


def _has_class(_: str, node: dict, owner: str) -> bool:
    return node.get("class_type") == owner


def _has_title(_: str, node: dict, owner: str) -> bool:
    meta = node.get("_meta")
    return isinstance(meta, dict) and meta.get("title") == owner


def _is_widget(node: dict, name: str, graph: dict) -> bool:
    """Whether an input exists and holds a value: a link is [node id, output]."""
    inputs = node["inputs"]
    value = inputs.get(name)
    linked = isinstance(value, list) and len(value) == 2 and str(value[0]) in graph
    return name in inputs and not linked
