"""A family's prompt apart from its projection: the same bits, with and without a text."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from image_to_prompt.projection import (
    EncodedPrompt,
    ImageToPromptError,
    fit_readings,
    load_prompt,
    picture_prompt,
    save_prompt,
    shared_slots,
)
from image_to_prompt.projection.families.saved import FamilyPrompt, saved_prompt
from image_to_prompt.projection.families.several import by_slots, shared_states
from image_to_prompt.projection.families.slots import states_prompt
from image_to_prompt.tests.fixtures import builders
from image_to_prompt.tests.projection.families.toy_family import TOY, captions, pictures, states_of

ENCODER = builders.small_projection().encoder


@pytest.fixture(scope="module")
def readings():
    joint = captions(400)
    return fit_readings(TOY, joint, states_of(joint))


def encoded(*eos: int) -> EncodedPrompt:
    draw = torch.Generator().manual_seed(sum(eos))
    states = {p.key: torch.randn(1, 77 * len(eos), p.width, generator=draw) for p in TOY.parts}
    return EncodedPrompt(states, {"a": eos, "b": eos}, torch.randn(1, 10, generator=draw))


def saved(readings, count: int = 2, text: EncodedPrompt | None = None) -> FamilyPrompt:
    made = picture_prompt(readings, pictures(count), text or encoded(1))
    return FamilyPrompt.of(*made, readings, ENCODER)


@pytest.mark.parametrize("blend", ["add", "add, keep length"])
@pytest.mark.parametrize("eos", [(1,), (4,), (76, 9)])
def test_a_text_gives_what_it_gives_with_the_picture(readings, eos, blend, tmp_path):
    save_prompt(saved(readings), tmp_path / "p")
    text = encoded(*eos)
    found = saved_prompt(load_prompt(tmp_path / "p"), text, 0.7, blend)
    wanted = picture_prompt(readings, pictures(2), text, 0.7, blend)
    assert all(torch.equal(*pair) for pair in zip(found, wanted, strict=True))


def test_a_file_holds_each_vector_once_and_gives_the_same_prompt(readings, tmp_path):
    prompt = saved(readings, 1)
    save_prompt(prompt, tmp_path / "p")
    loaded = load_prompt(tmp_path / "p")
    assert isinstance(loaded, FamilyPrompt)
    assert prompt.vectors.shape == (2, 16)  # EOS and pads
    for name in ("family", "layer", "encoder"):
        assert getattr(loaded, name) == getattr(prompt, name)
    for name in ("vectors", "slots", "pooled"):
        assert torch.equal(getattr(loaded, name), getattr(prompt, name))
    for name, origin in prompt.origins.items():
        assert torch.equal(loaded.origins[name].offset, origin.offset)
        assert torch.equal(loaded.origins[name].scale, origin.scale)
    with safe_open(tmp_path / "p", "pt") as file:  # which earlier versions refuse by name
        assert json.loads(file.metadata()["features"]) == ["family"]


def test_a_prompt_with_a_text_in_it_comes_back_as_it_was(readings):
    text = encoded(76, 9)
    made = picture_prompt(readings, pictures(2), text, 0.7)
    prompt = FamilyPrompt.of(*made, readings, ENCODER)
    empty = encoded(1)
    found, pooled = saved_prompt(prompt, empty)
    starts = torch.cat([empty.states[key][:, :1] for key in "ab"], dim=-1)
    assert found.shape == made[0].shape and torch.equal(pooled, made[1])
    for slot in range(154):
        wanted = starts[:, 0].expand(2, -1) if slot % 77 == 0 else made[0][:, slot]
        assert torch.equal(found[:, slot], wanted)


@pytest.mark.parametrize(
    "states, pooled",
    [
        (torch.zeros(1, 77, 15), torch.zeros(1, 10)),
        (torch.zeros(1, 76, 16), torch.zeros(1, 10)),
        (torch.zeros(1, 77, 16), torch.zeros(2, 10)),
        (torch.zeros(1, 77, 16), torch.zeros(1, 9)),
        (torch.zeros(0, 77, 16), torch.zeros(0, 10)),
        (torch.full((1, 77, 16), torch.nan), torch.zeros(1, 10)),
        (torch.zeros(1, 77, 16), torch.full((1, 10), torch.inf)),
    ],
)
def test_what_does_not_fit_is_refused(readings, states, pooled):
    with pytest.raises(ImageToPromptError, match="conditioning"):
        FamilyPrompt.of(states, pooled, readings, ENCODER)


@pytest.mark.parametrize(
    "name, value",
    [
        ("vectors", torch.zeros(2, 15)),
        ("vectors", torch.full((2, 16), torch.nan)),
        ("slots", torch.full((1, 77), 2, dtype=torch.int32)),
        ("pooled", torch.zeros(2, 10)),
        ("pooled", torch.zeros(10)),
        ("a.eos.scale", torch.zeros(6)),
        ("b.pad.offset", torch.zeros(6)),
        ("pooled.offset", None),
        ("more", torch.zeros(1)),
    ],
)
def test_a_damaged_file_is_refused(readings, tmp_path, name, value):
    save_prompt(saved(readings, 1), tmp_path / "p")
    tensors = load_file(tmp_path / "p")
    with safe_open(tmp_path / "p", "pt") as file:
        metadata = file.metadata()
    tensors[name] = value
    save_file({k: v for k, v in tensors.items() if v is not None}, tmp_path / "q", metadata)
    with pytest.raises(ImageToPromptError, match="whole prompt file"):
        load_prompt(tmp_path / "q")


@pytest.mark.parametrize(
    "key, value",
    [
        ("features", ["family", "common"]),
        ("layer", 0),
        ("family", {}),
        ("family", {"name": "f", "parts": [], "pooled": "z", "layer": -1}),
        ("features", []),
    ],
)
def test_damaged_facts_are_refused(readings, tmp_path, key, value):
    save_prompt(saved(readings, 1), tmp_path / "p")
    with safe_open(tmp_path / "p", "pt") as file:
        metadata = {**file.metadata(), key: json.dumps(value)}
    save_file(load_file(tmp_path / "p"), tmp_path / "q", metadata)
    with pytest.raises(ImageToPromptError, match="whole prompt file"):
        load_prompt(tmp_path / "q")


def test_slots_that_pictures_share_stay_where_they_were_saved(readings):
    v, slots = torch.nn.functional.normalize(pictures(2), dim=-1), shared_slots([2, 1])

    def shared(text: EncodedPrompt) -> tuple[torch.Tensor, torch.Tensor]:
        states, _ = shared_states(readings, v, [2, 1])
        made, pooled = states_prompt(readings, states, text, 0.7)
        return by_slots(made, slots), pooled

    prompt, text = FamilyPrompt.of(*shared(encoded(1)), readings, ENCODER), encoded(9)
    found, pooled = saved_prompt(prompt, text, 0.7)
    wanted, wanted_pooled = shared(text)
    places = [n for n in range(77) if n != 9]  # whose end token it is, only the first prompt knows
    assert torch.equal(found[:, places], wanted[:, places])
    assert torch.equal(pooled, wanted_pooled)


def test_the_prompt_keeps_tensors_of_its_own(readings):
    prompt = saved(readings, 1)
    before = prompt.origins["pooled"].offset.clone()
    readings.readings["pooled"].offset.add_(1)
    try:
        assert torch.equal(prompt.origins["pooled"].offset, before)
    finally:
        readings.readings["pooled"].offset.sub_(1)
