"""Inputs of an API graph: pictures and texts in order, numbers by class."""

import json

import pytest

from image_to_prompt.workflows import run
from image_to_prompt.workflows.api_client.inputs import (
    SETTINGS,
    InputsError,
    node_order,
    nodes_of,
    parsed,
    with_inputs,
)
from image_to_prompt.workflows.authoring import build

VARIATION, REGIONS = build.variation().api(), build.two_regions().api()


def values(graph, class_type, name):
    return [graph[number]["inputs"][name] for number in nodes_of(graph, class_type)]


def test_pictures_and_texts_go_to_their_nodes_in_order():
    graph = with_inputs(REGIONS, ["left.png", "right.png"], ["day", "night"])
    assert values(graph, "LoadImage", "image") == ["left.png", "right.png"]
    assert values(graph, "ImageToPromptEmbed", "text") == ["day", "night"]


def test_fewer_texts_leave_the_rest_as_it_was():
    assert values(with_inputs(REGIONS, [], ["day"]), "ImageToPromptEmbed", "text") == ["day", ""]


def test_a_refinement_that_keeps_texts_keeps_what_is_written():
    kept = ("OnlineRefine", "keep_texts")
    assert values(with_inputs(build.refine_and_edit().api(), [], ["at night"]), *kept) == [
        "at night"
    ]
    assert values(with_inputs(build.refine_and_vary().api(), [], ["at night"]), *kept) == [""]


def test_nodes_are_ordered_as_numbers_not_as_text():
    graph = {str(n): {"class_type": "LoadImage", "inputs": {}} for n in (10, 9, 100)}
    assert nodes_of(graph, "LoadImage") == ["9", "10", "100"]


def test_the_given_graph_is_not_changed():
    before = json.dumps(VARIATION)
    with_inputs(VARIATION, ["a.png"], ["x"], {"seed": 5})
    assert json.dumps(VARIATION) == before


@pytest.mark.parametrize("make", build.GRAPHS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_reaches_every_workflow(make, setting):
    if (make, setting) == (build.negative_picture, "negative"):
        return  # its negative is a picture
    filled = with_inputs(make().api(), settings={setting: "given"})
    places = [place.split(".") for place in SETTINGS[setting]]
    assert {value for place in places for value in values(filled, *place)} == {"given"}


def test_one_node_can_be_set_by_its_number():
    number = nodes_of(REGIONS, "ImageToPromptEmbed")[1]
    graph = with_inputs(REGIONS, settings={f"{number}.strength": 0.5})
    assert values(graph, "ImageToPromptEmbed", "strength") == [1.0, 0.5]


TITLED = {
    "57:9": {"class_type": "KSampler", "inputs": {"seed": 1, "model": ["save", 0]}},
    "save": {"class_type": "Any", "inputs": {"a.b": 1, "both": [1, 2]}, "_meta": {"title": "v1.5"}},
    "9": {"class_type": "Any", "inputs": {"both": 1}, "_meta": {"title": "x=1.5 y"}},
    "10": {"class_type": "Any", "inputs": {"both": 2}, "_meta": {"title": "KSampler"}},
    "11": {"class_type": "Any", "inputs": {"both": 3}, "_meta": "no mapping"},
}


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("57:9.seed=7", {"57:9": {"seed": 7}}),
        ("KSampler.seed=7", {"57:9": {"seed": 7}}),
        ("save.a.b=7", {"save": {"a.b": 7}}),
        ("v1.5.a.b=7", {"save": {"a.b": 7}}),
        ("v1.5.both=7", {"save": {"both": 7}}),
        ("x=1.5 y.both=7", {"9": {"both": 7}}),
        ("KSampler.both=7", {"10": {"both": 7}}),
        (
            "Any.both=7",
            {"save": {"both": 7}, "9": {"both": 7}, "10": {"both": 7}, "11": {"both": 7}},
        ),
    ],
)
def test_a_node_is_named_by_id_class_or_title(text, changed):
    name, value = parsed(text, TITLED)
    found = with_inputs(TITLED, settings={name: value})
    for number, node in TITLED.items():
        assert found[number]["inputs"] == node["inputs"] | changed.get(number, {})


def test_ids_that_are_no_numbers_have_an_order():
    ids = ["save", "57:10", "9", "57:9", "100", "57", "10", "09"]
    assert sorted(ids, key=node_order) == ["09", "9", "10", "57", "57:9", "57:10", "100", "save"]


@pytest.mark.parametrize(
    ("images", "texts", "settings", "message"),
    [
        (["a", "b"], [], {}, "expected 1 pictures, one per LoadImage; got 2"),
        ([], ["a", "b"], {}, "expected at most 1 texts; got 2"),
        ([], [], {"LoraLoader.strength": 1}, "no value LoraLoader.strength"),
        ([], [], {"KSampler.model": 1}, "no value KSampler.model .a link cannot"),
        ([], [], {"KSampler.sed": 1}, "no value KSampler.sed"),
        ([], [], {"99.seed": 1}, "no value 99.seed"),
    ],
)
def test_what_has_no_place_is_refused(images, texts, settings, message):
    with pytest.raises(InputsError, match=message):
        with_inputs(VARIATION, images, texts, settings)


@pytest.mark.parametrize(
    ("text", "value"), [("5.a=0.8", 0.8), ("5.a=on", "on"), ("5.a=x=1", "x=1"), ("5.a=", "")]
)
def test_a_value_is_json_or_else_text(text, value):
    assert parsed(text, {}) == ("5.a", value)


@pytest.mark.parametrize("text", ["5.a", "a=1", "=1"])
def test_a_setting_without_a_place_or_value_is_refused(text):
    with pytest.raises(InputsError, match=r"expected NODE\.INPUT=VALUE"):
        parsed(text, {})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "line 1"),
        ("[]", "not a workflow in API format"),
        ('{"1": {"class_type": "X"}}', "not a workflow in API format"),
        ('{"1": {"class_type": 3, "inputs": {}}}', "not a workflow in API format"),
        ("[" * 100_000, "recursion"),
        ('{"1": 2}', "not a workflow in API format"),
        (json.dumps(build.variation().page()), "page's format"),
    ],
)
def test_only_api_graphs_are_loaded(tmp_path, content, message):
    file = tmp_path / "workflow.json"
    file.write_text(content)
    with pytest.raises(InputsError, match=message):
        run.load_workflow(file)
    assert run.main([str(file), "--server", "http://127.0.0.1:1"]) == 1


def test_a_missing_file_is_said(tmp_path, capsys):
    assert run.main([str(tmp_path / "none.json"), "--server", "http://127.0.0.1:1"]) == 1
    assert "none.json" in capsys.readouterr().err
