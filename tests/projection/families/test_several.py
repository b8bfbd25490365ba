"""Several pictures in one prompt of a family: slots that are shared, weights that subtract."""

from __future__ import annotations

import pytest
import torch

from image_to_prompt.projection import (
    EncodedPrompt,
    ImageToPromptError,
    fit_readings,
    picture_prompt,
    shared_slots,
    spherical_mean,
)
from image_to_prompt.projection.families.several import by_slots, mean_states, shared_states
from image_to_prompt.projection.families.slots import states_prompt
from image_to_prompt.tests.projection.families.toy_family import TOY, captions, pictures, states_of


@pytest.fixture(scope="module")
def readings():
    joint = captions(400)
    return fit_readings(TOY, joint, states_of(joint))


@pytest.fixture(scope="module")
def embeds():
    return torch.nn.functional.normalize(pictures(3), dim=-1)


def equal(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def near(one, other) -> bool:
    return one.keys() == other.keys() and all(
        torch.allclose(one[k], other[k], atol=1e-4) for k in one
    )


@pytest.mark.parametrize("weights", [None, [1, 2, 0], [1, 1, 1]])
def test_without_weights_below_zero_the_mean_is_the_spherical_one(readings, embeds, weights):
    wanted = readings.apply(spherical_mean(embeds, weights))
    assert equal(mean_states(readings, embeds, weights), wanted)


def test_what_is_taken_away_follows_the_written_formula(readings, embeds):
    found = mean_states(readings, embeds, [1, 0.5, -0.75])
    mean = readings.apply(spherical_mean(embeds[:2], [1, 0.5]))
    taken = readings.apply(embeds[2:])
    for name, reading in readings.readings.items():
        d, q = ((states[name] - reading.offset) / reading.scale for states in (mean, taken))
        left = d - 0.5 * q
        left = left * min(1.0, float(d.norm() / left.norm()))
        assert torch.allclose(found[name], reading.offset + left * reading.scale, atol=1e-4)


def test_a_picture_less_itself_is_the_mean_prompt(readings, embeds):
    found = mean_states(readings, embeds[[0, 0]], [1, -1])
    for name, reading in readings.readings.items():
        assert torch.allclose(found[name][0], reading.offset, atol=1e-4)


def test_the_order_of_pictures_does_not_matter(readings, embeds):
    one = mean_states(readings, embeds, [1, 2, -1])
    assert near(mean_states(readings, embeds[[2, 0, 1]], [-1, 1, 2]), one)


@pytest.mark.parametrize("weights", [[0, -1, -1], [1, 2], [1, float("nan"), 1]])
def test_unfit_weights_are_refused(readings, embeds, weights):
    for combine in (mean_states, shared_states):
        with pytest.raises(ImageToPromptError, match="weights"):
            combine(readings, embeds, weights)


def test_pictures_that_share_slots_keep_states_of_their_own(readings, embeds):
    states, shares = shared_states(readings, embeds, [2, 0, 1])
    assert shares == [2, 1]
    alone = readings.apply(embeds[[0, 2]])
    mean = mean_states(readings, embeds, [2, 0, 1])
    assert equal(states, {**alone, "pooled": mean["pooled"]})


def test_copies_of_a_picture_that_share_slots_are_the_picture(readings, embeds):
    text = encoded(4)
    states, shares = shared_states(readings, embeds[[0, 0]], None)
    prompt, pooled = states_prompt(readings, states, text, 0.5)
    wanted, wanted_pooled = picture_prompt(readings, embeds[:1], text, 0.5)
    assert torch.allclose(by_slots(prompt, shared_slots(shares)), wanted, atol=1e-5)
    assert torch.allclose(pooled, wanted_pooled, atol=1e-5)


@pytest.mark.parametrize("eos", [(4,), (76, 9), (76, 76, 9)])
def test_each_slot_holds_one_picture_in_proportion_and_words_stay(readings, embeds, eos):
    text = encoded(*eos)
    states, shares = shared_states(readings, embeds[:2], [3, 1])
    prompt, _ = states_prompt(readings, states, text, 0.5)
    slots = shared_slots(shares)
    found = by_slots(prompt, slots)
    assert found.shape == (1, 77 * len(eos), 16)
    for slot in range(found.shape[1]):
        assert torch.equal(found[0, slot], prompt[slots[0, slot % 77], slot])
    last = 77 * (len(eos) - 1)
    taken = slots[0, eos[-1] :].bincount()
    assert taken[0] in (3 * taken[1] - 2, 3 * taken[1] - 1, 3 * taken[1], 3 * taken[1] + 1,
                        3 * taken[1] + 2)  # fmt: skip
    words = torch.cat([text.states[key][:, last : last + eos[-1]] for key in "ab"], dim=-1)
    assert torch.equal(found[:, last : last + eos[-1]], words)


def encoded(*eos: int) -> EncodedPrompt:
    draw = torch.Generator().manual_seed(sum(eos))
    states = {p.key: torch.randn(1, 77 * len(eos), p.width, generator=draw) for p in TOY.parts}
    return EncodedPrompt(states, {"a": eos, "b": eos}, torch.randn(1, 10, generator=draw))
