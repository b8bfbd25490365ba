"""Prompts whose slots hold different vectors, and weights below zero."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from image_to_prompt.projection import (
    ClipIdentity,
    ImageToPromptError,
    SlotPrompt,
    assemble,
    condition,
    shared_slots,
    slot_conditioning,
    spherical_mean,
    weighted,
    weighted_mean,
)
from image_to_prompt.tests.fixtures.builders import normal

WIDTH, NORM = 24, 27.5
IDENTITY = ClipIdentity(WIDTH, WIDTH, None, "text")
OFFSET = 3 * normal(WIDTH, seed=9)


def rows(count: int, seed: int = 0) -> torch.Tensor:
    x = normal(count, WIDTH, seed=seed)
    return NORM * x / x.norm(dim=-1, keepdim=True)


def prompt(vectors: torch.Tensor, slots: torch.Tensor, **more: object) -> SlotPrompt:
    return SlotPrompt(vectors, slots, IDENTITY, **more)


# --- sharing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [[1, 1], [3, 1], [1, 2, 4], [0.5], [1, 1, 1, 1, 1], [9, 1]])
def test_slots_are_shared_in_proportion_whatever_a_text_leaves(weights):
    slots = shared_slots(weights)[0]
    assert len(slots) == 77
    for left in (8, 20, 50, 76):
        counts = torch.bincount(slots[-left:], minlength=len(weights))
        wanted = left * torch.tensor(weights) / sum(weights)
        assert ((counts - wanted).abs() <= 1.0).all(), (left, counts)


def test_a_picture_of_weight_0_gets_no_slot():
    assert not (shared_slots([1.0, 0.0])[0] == 1).any()


def test_each_slot_holds_its_pictures_prompt():
    vectors, states = rows(3), normal(1, 77, WIDTH, seed=2)
    slots = shared_slots([1, 1, 2])
    found = slot_conditioning(prompt(vectors, slots), states, [5], 0.6)
    for place in range(77):
        alone = condition(states, [5], vectors[slots[0, place]][None], 0.6)
        assert torch.equal(found[0, place], alone[0, place])


def test_one_picture_has_all_slots_bit_for_bit():
    vectors, states = rows(1), normal(1, 77, WIDTH, seed=2)
    found = slot_conditioning(prompt(vectors, shared_slots([3.0])), states, [1], 0.6)
    assert torch.equal(found, assemble(states[0, 0], vectors))


def test_a_text_of_two_chunks_shares_both():
    vectors, states = rows(2), normal(1, 154, WIDTH, seed=2)
    found = slot_conditioning(prompt(vectors, shared_slots([1, 1])), states, [76, 9], 0.0)
    each = condition(states, [76, 9], vectors, 0.0)
    assert torch.equal(found[0, 77:], each[shared_slots([1, 1])[0], torch.arange(77, 154)])


def test_a_text_shorter_than_the_prompt_is_refused():
    with pytest.raises(ImageToPromptError, match="at least 2 chunks"):
        long = prompt(rows(1), torch.zeros(1, 154, dtype=torch.int64))
        slot_conditioning(long, normal(1, 77, WIDTH), [1], 0.6)


# --- weights below zero -----------------------------------------------------------------------


def test_weights_from_zero_on_are_the_spherical_mean_bit_for_bit():
    e = rows(3)
    for weights in (None, [1.0, 2.0, 0.0]):
        assert torch.equal(weighted_mean(e, weights, None), spherical_mean(e, weights))


def test_a_picture_less_itself_is_the_mean_prompt():
    e = rows(1).expand(2, -1)
    assert torch.allclose(weighted_mean(e, [1, -1], OFFSET)[0], OFFSET, atol=1e-5)
    left, shares = weighted(e, [1, -1], OFFSET)
    assert torch.allclose(left, OFFSET[None], atol=1e-5) and shares == [1]


def test_without_a_mean_prompt_weights_that_cancel_are_refused():
    e = rows(1).expand(2, -1)
    for several in (weighted, weighted_mean):
        with pytest.raises(ImageToPromptError, match="cancel"):
            several(e, [1, -1], None)


def test_a_weight_below_zero_takes_the_shared_part_away():
    e = rows(2)
    found = weighted_mean(e, [1, -0.5], None)[0]
    assert torch.nn.functional.cosine_similarity(found, e[0] - 0.5 * e[1], dim=0) == pytest.approx(
        1
    )
    assert float(found.norm()) <= NORM * (1 + 1e-6)


def test_every_sharing_picture_loses_the_subtracted_one():
    e = rows(3)
    left, shares = weighted(e, [1, -1, 2], OFFSET)
    assert shares == [1, 2]
    away = (e[[0, 2]] - OFFSET) - (e[1] - OFFSET) / 3
    cosine = torch.nn.functional.cosine_similarity(left - OFFSET, away, dim=-1)
    assert torch.allclose(cosine, torch.ones(2), atol=1e-5)
    usual = (e[[0, 2]] - OFFSET).norm(dim=-1)
    assert ((left - OFFSET).norm(dim=-1) <= usual * (1 + 1e-5)).all()


@pytest.mark.parametrize("weights", [[-1, -1], [-1, 0], [1], [float("nan"), 1], [1, -float("inf")]])
def test_unfit_weights_are_refused(weights):
    for several in (weighted, weighted_mean):
        with pytest.raises(ImageToPromptError) as caught:
            several(rows(2), weights, None)
        assert caught.value.subject == "image weights"


# --- prompts to save --------------------------------------------------------------------------


def test_a_picture_alone_is_one_vector():
    found = SlotPrompt.of(assemble(normal(WIDTH), rows(1)), IDENTITY, None)
    assert torch.equal(found.vectors, rows(1)) and not found.slots.any()


def test_a_prompt_gives_its_conditioning_again_bit_for_bit():
    states = normal(1, 77, WIDTH, seed=2)
    made = slot_conditioning(prompt(rows(3), shared_slots([1, 1, 1])), states, [1], 0.6)
    again = slot_conditioning(SlotPrompt.of(made, IDENTITY, None), states, [1], 0.6)
    assert torch.equal(made, again)
    assert len(SlotPrompt.of(made, IDENTITY, None).vectors) == 3


def test_a_text_joins_a_saved_prompt_as_it_joins_the_picture():
    centred = SimpleNamespace(gap=1.0, common=OFFSET)
    states = normal(1, 77, WIDTH, seed=2)
    saved = SlotPrompt.of(assemble(states[0, 0], rows(2)), IDENTITY, centred)
    found = slot_conditioning(saved, states, [4], 0.8)
    assert torch.equal(found, condition(states, [4], rows(2), 0.8, centred=centred))
    without = SlotPrompt.of(assemble(states[0, 0], rows(2)), IDENTITY, None)
    assert not torch.allclose(slot_conditioning(without, states, [4], 0.8), found)


@pytest.mark.parametrize(
    "bad",
    [
        normal(1, 77, WIDTH + 1),
        normal(1, 76, WIDTH),
        normal(77, WIDTH),
        normal(0, 77, WIDTH),
        normal(1, 77, WIDTH) * float("nan"),
    ],
)
def test_what_is_no_conditioning_of_the_clip_is_not_saved(bad):
    with pytest.raises(ImageToPromptError) as caught:
        SlotPrompt.of(bad, IDENTITY, None)
    assert caught.value.subject == "prompt to save"
