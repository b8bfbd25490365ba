"""The workflow files against the host's own node classes."""

from __future__ import annotations

import json

import pytest

from image_to_prompt.workflows.authoring import build
from image_to_prompt.workflows.authoring.node_specs import NODE_SPECS, OURS, PAGE

TYPED = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
# After these the page puts a widget of its own and saves its value too.
PAGE_WIDGETS = ("control_after_generate", "image_upload")
FILES = ("ckpt_name", "clip_name", "file", "image", "folder")  # lists of what lies on the disk
EXECUTED = [name for name, spec in NODE_SPECS.items() if spec.pack != PAGE]
APIS = [path for path in build.files() if path.parent.name == "api"]


@pytest.fixture(scope="module")
def classes(host):
    import nodes

    return {**nodes.NODE_CLASS_MAPPINGS, **extras(), **host.classes}


def extras() -> dict[str, type]:
    """The host's nodes that lie outside of its main file and that the workflows use."""
    import asyncio
    import importlib

    try:
        module = importlib.import_module("comfy_extras.nodes_dataset")
    except ImportError:
        return {}
    extension = asyncio.run(module.comfy_entrypoint())
    return {node.define_schema().node_id: node for node in asyncio.run(extension.get_node_list())}


@pytest.fixture(autouse=True)
def in_this_host(request, classes):
    """Skips what is about a node that only newer hosts have."""
    name = getattr(request.node, "callspec", None) and request.node.callspec.params.get("name")
    if name and NODE_SPECS[name].since and name not in classes:
        pytest.skip(f"this host has no {name}, which came with {NODE_SPECS[name].since}")


def inputs_of(cls) -> dict[str, tuple[object, dict]]:
    """Name -> (type, options), required before optional, as the page numbers them."""
    types = cls.INPUT_TYPES()
    both = {**types["required"], **types.get("optional", {})}
    return {name: (spec[0], spec[1] if len(spec) > 1 else {}) for name, spec in both.items()}


def is_widget(type_: object) -> bool:
    return isinstance(type_, list) or type_ in TYPED


@pytest.mark.parametrize("name", EXECUTED)
def test_sockets_and_widgets_are_the_hosts_in_its_order(name, classes):
    spec, inputs = NODE_SPECS[name], inputs_of(classes[name])
    assert list(spec.widgets) == [key for key, (type_, _) in inputs.items() if is_widget(type_)]
    assert dict(spec.sockets) == {
        key: type_ for key, (type_, _) in inputs.items() if not is_widget(type_)
    }
    assert list(spec.sockets) == [key for key in inputs if key in spec.sockets]


@pytest.mark.parametrize("name", EXECUTED)
def test_the_widgets_that_the_page_adds_are_known(name, classes):
    added = {
        key
        for key, (_, options) in inputs_of(classes[name]).items()
        if any(options.get(flag) for flag in PAGE_WIDGETS)
    }
    assert set(NODE_SPECS[name].page_widgets) == added


@pytest.mark.parametrize("name", EXECUTED)
def test_outputs_are_the_hosts(name, classes):
    types = list(classes[name].RETURN_TYPES)
    names = list(getattr(classes[name], "RETURN_NAMES", None) or types)
    known = [list(output) for output in NODE_SPECS[name].outputs]
    # Newer hosts also give out what an output node saved; nothing of ours uses it.
    if name not in ("SaveImage", "PreviewImage"):
        assert known == [list(output) for output in zip(names, types, strict=True)]


@pytest.mark.parametrize("path", APIS, ids=str)
def test_every_value_is_one_that_the_host_allows(path, classes):
    for node in json.loads(build.files()[path]).values():
        if NODE_SPECS[node["class_type"]].since and node["class_type"] not in classes:
            continue
        inputs = inputs_of(classes[node["class_type"]])
        for name, value in node["inputs"].items():
            type_, options = inputs[name]
            if isinstance(value, list) or name in FILES:
                continue
            choices = type_ if isinstance(type_, list) else options.get("options")
            if choices is not None:
                assert value in choices
            if type_ in ("INT", "FLOAT"):
                assert options["min"] <= value <= options["max"]
        required = classes[node["class_type"]].INPUT_TYPES()["required"]
        assert required.keys() <= node["inputs"].keys()


@pytest.mark.parametrize("name", [name for name in EXECUTED if NODE_SPECS[name].pack == OURS])
def test_our_own_defaults_are_the_nodes(name, classes):
    inputs = inputs_of(classes[name])
    for key, value in NODE_SPECS[name].widgets.items():
        if key not in FILES:
            assert value == inputs[key][1]["default"]
