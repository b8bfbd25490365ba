"""A graph saved with the first release still runs and gives the same tensors.

tests/fixtures/frozen_graph.json must never change; tests/fixtures/frozen-conditioning.safetensors
holds what it gave on ComfyUI 0.33.0. The CLIP is small and random: wiring only.
"""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from image_to_prompt.tests.host import small_models

FIXTURES = small_models.ROOT / "tests" / "fixtures"
EXPECTED = FIXTURES / "frozen-conditioning.safetensors"
ROWS = [0, 1, 4, 6, 76]  # SOS, words, first EOS, last EOS


@pytest.fixture(scope="module")
def results(host, tmp_path_factory):
    """What every node of the frozen graph gave, by its number."""
    reference = small_models.reference_clip(seed=2)
    weights = ("text_projection.weight", "visual_projection.weight")
    save_file(
        {name: reference.state_dict()[name].half().contiguous() for name in weights},
        host.folders / "models" / "text_encoders" / "frozen-clip.safetensors",
    )
    ramp = torch.linspace(0, 1, 80)
    wide = torch.stack([ramp.expand(50, 80), ramp.flip(0).expand(50, 80), ramp.expand(50, 80) ** 2])
    image = torch.stack([wide, 1 - wide]).movedim(1, -1).contiguous()
    with torch.inference_mode():
        outside = {
            "clip": (small_models.host_clip(reference),),
            "clip_vision": (
                small_models.host_clip_vision(reference, tmp_path_factory.mktemp("vision")),
            ),
            "image": (image,),
        }
        return execute(host, json.loads((FIXTURES / "frozen_graph.json").read_text()), outside)


def execute(host, graph, results):
    """Run an API graph node by node; links into `results` that it already holds are given."""
    for number, node in graph.items():
        inputs = {
            name: results[value[0]][value[1]] if isinstance(value, list) else value
            for name, value in node["inputs"].items()
        }
        node_class = host.classes[node["class_type"]]
        if node["class_type"] == "LoadProjection":
            assert node_class.validate_inputs(file=inputs["file"]) is True
        results[number] = node_class.execute(**inputs).args
    return results


def rows_of(results):
    return {number: results[number][0][0][0][:, ROWS].contiguous() for number in ("2", "3")}


def test_the_frozen_graph_gives_what_it_gave(results):
    expected = load_file(EXPECTED)
    for number, rows in rows_of(results).items():
        assert rows.shape == expected[number].shape
        assert (rows - expected[number]).abs().max() <= 1e-3 * 27.5


def test_a_saved_projection_comes_back_bit_for_bit_whatever_the_widgets_say(results):
    saved, loaded = results["1"][0], results["5"][0]
    assert loaded.method == saved.method == "pseudo-inverse"
    assert (loaded.cutoff, loaded.kept, loaded.norm) == (saved.cutoff, saved.kept, saved.norm)
    assert loaded.encoder == saved.encoder
    assert torch.equal(loaded.matrix, saved.matrix)
    assert torch.equal(loaded.singular_values, saved.singular_values)


def test_saving_again_never_overwrites(host, results):
    save = host.classes["SaveProjection"]
    first = host.folders / "models" / "projections" / "frozen" / "mine_00001_.safetensors"
    before = first.read_bytes()
    save.execute(projection=results["1"][0], filename_prefix="frozen/mine")
    assert first.read_bytes() == before
    assert first.with_name("mine_00002_.safetensors").exists()
