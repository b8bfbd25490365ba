"""A picture in the slots of a prompt: what is touched, what is added, what strength does."""

from __future__ import annotations

import pytest
import torch

from image_to_prompt.projection import (
    EncodedPrompt,
    ImageToPromptError,
    fit_readings,
    picture_prompt,
    pooled_strength,
)
from image_to_prompt.tests.projection.families.toy_family import TOY, captions, pictures, states_of


@pytest.fixture(scope="module")
def readings():
    joint = captions(400)
    return fit_readings(TOY, joint, states_of(joint))


def text(*eos: int) -> EncodedPrompt:
    draw = torch.Generator().manual_seed(len(eos) + sum(eos))
    states = {
        part.key: torch.randn(1, 77 * len(eos), part.width, generator=draw) for part in TOY.parts
    }
    pooled = torch.randn(1, 10, generator=draw)
    return EncodedPrompt(states, {"a": eos, "b": eos}, pooled)


def test_a_picture_alone_takes_every_slot_but_the_first(readings):
    v, empty = pictures(2), text(1)
    cond, pooled = picture_prompt(readings, v, empty, text_weight=5.0)
    states = readings.apply(v)
    assert cond.shape == (2, 77, 16) and pooled.shape == (2, 10)
    for at, key in ((slice(0, 6), "a"), (slice(6, 16), "b")):
        assert torch.equal(cond[:, 0, at], empty.states[key][:, 0].expand(2, -1))
        assert torch.equal(cond[:, 1, at], states[f"{key}.eos"])
        assert torch.equal(cond[:, 2:, at], states[f"{key}.pad"][:, None].expand(-1, 75, -1))
    assert torch.equal(pooled, states["pooled"])


@pytest.mark.parametrize("blend", ["add", "add, keep length"])
@pytest.mark.parametrize("eos", [(4,), (76, 9)])
def test_start_and_words_of_every_chunk_stay_and_slots_get_text_beside_the_offset(
    readings, eos, blend
):
    v, words = pictures(2), text(*eos)
    cond, pooled = picture_prompt(readings, v, words, 0.5, blend)
    states = readings.apply(v)
    for at, key in ((slice(0, 6), "a"), (slice(6, 16), "b")):
        found, before = cond[..., at], words.states[key]
        for chunk, end in enumerate(eos):
            start = 77 * chunk
            place = slice(start, start + end)
            assert torch.equal(found[:, place], before[:, place].expand(2, -1, -1))
            for slot in (start + end, start + 76):
                name = f"{key}.eos" if slot == start + end else f"{key}.pad"
                offset, scale = readings.readings[name].offset, readings.readings[name].scale
                x = states[name] - offset
                sums = x + 0.5 * (before[0, slot] - offset)
                if blend != "add":
                    sums *= ((x / scale).norm(dim=-1) / (sums / scale).norm(dim=-1))[:, None]
                assert torch.allclose(found[:, slot], offset + sums, atol=1e-4), name
    if blend == "add":
        offset = readings.readings["pooled"].offset
        assert torch.allclose(pooled, states["pooled"] + 0.5 * (words.pooled - offset), atol=1e-4)


def test_rules_for_pads(readings):
    v, words = pictures(2), text(4)
    states = readings.apply(v)
    own, _ = picture_prompt(readings, v, words, 0.0, pads="text encoder")
    both = torch.cat([words.states["a"], words.states["b"]], dim=-1)
    assert torch.equal(own[:, 5:], both[:, 5:].expand(2, -1, -1))
    every, _ = picture_prompt(readings, v, words, 0.0, pads="EOS")
    assert torch.equal(own[:, :5], every[:, :5])
    assert torch.equal(every[:, 76, :6], states["a.eos"])


def test_strength_of_pooled_vectors():
    pooled, null = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[0.1, 0.2]])
    assert pooled_strength(pooled, null, 1) is pooled
    assert torch.equal(pooled_strength(pooled, null, 0), null.expand(2, -1))
    assert torch.allclose(pooled_strength(pooled, null, 2.0), 2 * pooled - null)


def test_other_names_and_widths_are_refused(readings):
    v = pictures(1)
    with pytest.raises(ImageToPromptError, match="a blend among"):
        picture_prompt(readings, v, text(1), blend="mix")
    with pytest.raises(ImageToPromptError, match="a rule for pads among"):
        picture_prompt(readings, v, text(1), pads="none")
    wrong = text(1)
    wrong.states["b"] = wrong.states["a"]
    with pytest.raises(ImageToPromptError, match=r"\(1, 77 n, 10\)"):
        picture_prompt(readings, v, wrong)
