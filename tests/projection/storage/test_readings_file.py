"""A projection with readings in a file: the same bits back, refused by name where unknown."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file

from image_to_prompt.projection import (
    SDXL,
    ClipIdentity,
    ImageToPromptError,
    Projection,
    Reading,
    Readings,
    fit_readings,
    load_projection,
    save_projection,
)
from image_to_prompt.projection.storage import projection_file
from image_to_prompt.tests.projection.families.toy_family import TOY, captions, pictures, states_of


def toy() -> Projection:
    joint = captions(400)
    readings = fit_readings(TOY, joint, states_of(joint)).with_pictures(pictures(9))
    weight = torch.randn(8, 8, generator=torch.Generator().manual_seed(4))
    identity = ClipIdentity.of(weight)
    base = Projection(weight, torch.ones(8), identity, "pseudo-inverse", 0.3, 8)
    return base.with_readings(readings)


def header(path):
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


@pytest.fixture
def saved(tmp_path):
    save_projection(toy(), tmp_path / "p.safetensors")
    return tmp_path / "p.safetensors"


def test_a_loaded_projection_gives_the_same_states_bit_for_bit(saved):
    loaded, readings = load_projection(saved), toy().readings
    assert torch.equal(loaded.matrix, toy().matrix)
    found = loaded.readings.apply(pictures(3))
    for name, state in readings.apply(pictures(3)).items():
        assert torch.equal(found[name], state), name
        for field, value in vars(readings.readings[name]).items():
            other = getattr(loaded.readings.readings[name], field)
            assert torch.equal(other, value) if isinstance(value, torch.Tensor) else other == value
    assert loaded.readings.family == TOY
    counts = (loaded.readings.layer, loaded.readings.captions, loaded.readings.pictures)
    assert counts == (-2, 400, 9)
    save_projection(loaded, saved.with_name("again.safetensors"))
    assert saved.read_bytes() == saved.with_name("again.safetensors").read_bytes()


def test_a_version_that_does_not_know_readings_refuses_them_by_name(saved, monkeypatch):
    known = projection_file._FEATURES - {"readings"}
    monkeypatch.setattr(projection_file, "_FEATURES", known)
    with pytest.raises(ImageToPromptError, match="readings"):
        load_projection(saved)


@pytest.mark.parametrize(
    "damage",
    [
        {"readings": "{}"},
        {"readings": None},
        {"features": "[]"},
        {"readings": lambda text: text.replace('"captions": 400', '"captions": "many"')},
        {"readings": lambda text: text.replace('"layer": -2', '"layer": 2')},
        {"readings": lambda text: text.replace('"width": 10', '"width": 11')},
        {"readings": lambda text: text.replace('"pooled": "b"', '"pooled": "z"')},
    ],
)
def test_damaged_facts_are_refused(saved, damage):
    facts = header(saved)
    for key, value in damage.items():
        text = value(facts[key]) if callable(value) else value
        assert text != facts[key]
        facts = (
            {**facts, key: text} if text is not None else {k: facts[k] for k in facts if k != key}
        )
    save_file(load_tensors(saved), saved, facts)
    with pytest.raises(ImageToPromptError):
        load_projection(saved)


def test_a_missing_tensor_is_refused(saved):
    tensors, facts = load_tensors(saved), header(saved)
    assert json.loads(facts["readings"])["captions"] == 400
    del tensors["readings.b.pad.scale"]
    save_file(tensors, saved, facts)
    with pytest.raises(ImageToPromptError, match="whole projection file"):
        load_projection(saved)


@pytest.mark.parametrize("joint", [768, 1280])
def test_the_file_of_a_full_size_family_has_at_most_20_mb(tmp_path, joint):
    def reading(width: int) -> Reading:
        ones = torch.ones(width, joint)
        return Reading(ones, torch.zeros(width), torch.ones(width), 1.0, 0.9, 0.9)

    widths = {"l": 768, "g": 1280, "p": 1280}
    each = {name: reading(widths[name[0]]) for name in SDXL.reading_names}
    readings = Readings(SDXL, each, torch.zeros(joint), torch.zeros(joint), -2, 4000)
    identity = ClipIdentity(joint, joint, None, "")
    base = Projection(torch.ones(joint, joint), torch.ones(joint), identity, "transpose", 1.0, 1)
    save_projection(base.with_readings(readings), tmp_path / "p.safetensors")
    assert (tmp_path / "p.safetensors").stat().st_size <= 20e6
