"""The centred form in a projection's file: the same bits back, refused by name where unknown."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file

from image_to_prompt.projection import (
    CaptionStatistics,
    Centred,
    ImageToPromptError,
    content_hash,
    load_file,
    load_projection,
    save_projection,
    visual_direction,
)
from image_to_prompt.projection.storage import projection_file
from image_to_prompt.tests.fixtures import builders

EMBEDS = builders.normal(4, 32, seed=9)
PLAIN = builders.small_projection()


def with_gap(gap: float, plain=PLAIN):
    statistics = CaptionStatistics.of(builders.normal(40, 32, seed=2) + 0.5)
    direction = visual_direction(builders.visual_projection())
    form = Centred.of(builders.text_projection(), statistics, direction, 0.7, gap)
    return replace(plain, centred=form)


def header(path):
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "p.safetensors"
    save_projection(with_gap(0.1 + 0.2), path)
    return path


@pytest.mark.parametrize("gap", [0.0, 0.1 + 0.2, 1.0])
@pytest.mark.parametrize("plain", [PLAIN, builders.with_bias(PLAIN)])
def test_a_loaded_form_gives_the_same_prompts_bit_for_bit(tmp_path, gap, plain):
    projection = with_gap(gap, plain)
    save_projection(projection, tmp_path / "p.safetensors")
    loaded = load_file(tmp_path / "p.safetensors")
    assert torch.equal(loaded.apply(EMBEDS), projection.apply(EMBEDS))
    for name, value in vars(projection.centred).items():
        found = getattr(loaded.centred, name)
        same = torch.equal(found, value) if isinstance(value, torch.Tensor) else found == value
        assert same, name


def test_a_file_without_the_form_is_as_it_always_was(tmp_path):
    frozen = builders.FIXTURES / "projection-v1-plain.safetensors"
    save_projection(load_projection(frozen), tmp_path / "p.safetensors")
    assert header(tmp_path / "p.safetensors") == header(frozen)
    before, after = load_tensors(frozen), load_tensors(tmp_path / "p.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_file_announces_the_form_and_says_its_numbers(saved):
    metadata = header(saved)
    assert json.loads(metadata["features"]) == ["centred"]
    assert json.loads(metadata["centred"])["gap"] == 0.1 + 0.2
    assert json.loads(metadata["centred"])["removed"] == 0.7


def test_an_older_version_refuses_the_form_by_name(saved, monkeypatch):
    known = projection_file._FEATURES - {"centred"}
    monkeypatch.setattr(projection_file, "_FEATURES", known)
    with pytest.raises(ImageToPromptError, match=r"with centred.*Update"):
        load_projection(saved)


@pytest.mark.parametrize("name", ["matrix", "offset", "direction"])
def test_a_form_without_one_of_its_tensors_is_refused(saved, name):
    tensors = load_tensors(saved)
    del tensors[f"centred.{name}"]
    save_file(tensors, saved, header(saved))
    with pytest.raises(ImageToPromptError, match=f"centred.{name}"):
        load_projection(saved)


@pytest.mark.parametrize(
    "text",
    ["{}", "[]", "7", "null", "x", '{"spread": 1, "removed": 1, "offset_share": 1, "gap": 2}'],
)
def test_a_form_with_bad_numbers_is_refused(saved, text):
    save_file(load_tensors(saved), saved, {**header(saved), "centred": text})
    with pytest.raises(ImageToPromptError):
        load_projection(saved)


def test_a_content_hash_tells_gaps_apart(tmp_path):
    hashes = set()
    for gap in (0.0, 0.5, 1.0):
        save_projection(with_gap(gap), tmp_path / "p.safetensors")
        hashes.add(content_hash(tmp_path / "p.safetensors"))
    assert len(hashes) == 3


def test_a_file_for_vit_l14_has_less_than_10_mb(tmp_path):
    weights = builders.text_projection(768), builders.visual_projection(768, 1024)
    plain = type(PLAIN).from_text_projection(*weights)
    statistics = CaptionStatistics.of(builders.normal(40, 768, seed=2) + 0.5)
    form = Centred.of(weights[0], statistics, visual_direction(weights[1]), 1.0)
    save_projection(replace(plain, centred=form), tmp_path / "p.safetensors")
    assert (tmp_path / "p.safetensors").stat().st_size < 10e6
