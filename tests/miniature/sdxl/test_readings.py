"""Readings of pictures for SDXL at the narrow widths, and the slots they stand in."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from image_to_prompt.projection.families.least_squares import fit_readings
from image_to_prompt.projection.families.readings import Readings
from image_to_prompt.projection.families.slots import EncodedPrompt, picture_prompt

from . import models, readings, slots
from .test_conditions import random_prompts

WIDTHS = dict(zip(readings.KINDS, (96, 96, 64, 64, 64), strict=True))


def fitted() -> tuple[Readings, Tensor]:
    """Readings of states that are linear in 400 random embeddings, and the embeddings."""
    g = torch.Generator().manual_seed(4)
    joint = F.normalize(torch.randn(400, 96, generator=g) + 1, dim=-1)
    states = {kind: joint @ torch.randn(96, width, generator=g) for kind, width in WIDTHS.items()}
    return fit_readings(readings.FAMILY, joint, states), joint


def test_states_by_kind_are_the_end_token_the_mean_pad_and_pooled():
    prompts, ends = random_prompts(3), torch.tensor([4, 75, 1])
    states = readings.states_of(prompts, ends)
    assert {kind: value.shape[1] for kind, value in states.items()} == WIDTHS
    both = torch.cat([states["l.eos"], states["g.eos"]], dim=-1)
    assert torch.equal(both, prompts.context[torch.arange(3), ends])
    assert torch.allclose(states["l.pad"][1], prompts.context[1, 76, : models.L_WIDTH])
    mean = prompts.context[0, 5:].mean(dim=0)
    assert torch.allclose(states["g.pad"][0], mean[models.L_WIDTH :], atol=1e-5)
    assert torch.equal(states["pooled"], prompts.pooled)


@pytest.mark.parametrize("rule, pads", [("P1", "EOS"), ("P2", "picture"), ("P3", "text encoder")])
def test_slots_are_those_of_the_library(rule, pads):
    form, joint = fitted()
    empty, end = random_prompts(1, 8), torch.tensor([1])
    found = slots.placed(form.apply(joint[:3]), empty, end, rule)
    context, pooled = picture_prompt(form, joint[:3], encoded_prompt(empty, 1), pads=pads)
    assert torch.allclose(found.context, context, atol=1e-5)
    assert torch.allclose(found.pooled, pooled, atol=1e-5)


def test_edits_are_those_of_the_library():
    form, joint = fitted()
    text, end = random_prompts(1, 9), torch.tensor([5])
    found = slots.edited(form.apply(joint[:3]), form, text.expand(3), end.expand(3), 0.6)
    context, pooled = picture_prompt(form, joint[:3], encoded_prompt(text, 5), 0.6)
    assert torch.allclose(found.context, context, atol=1e-4)
    assert torch.allclose(found.pooled, pooled, atol=1e-4)


def encoded_prompt(prompts, end: int) -> EncodedPrompt:
    """One prompt as the library takes it."""
    first, second = prompts.context.split([models.L_WIDTH, models.G_WIDTH], dim=-1)
    return EncodedPrompt({"l": first, "g": second}, {"l": [end], "g": [end]}, prompts.pooled)


def test_slot_rules_differ_behind_the_end_token_only():
    form, joint = fitted()
    text, ends = random_prompts(1, 8), torch.tensor([4])
    states = form.apply(joint[:3])
    by_rule = {rule: slots.placed(states, text, ends, rule) for rule in slots.RULES}
    end = torch.cat([states["l.eos"], states["g.eos"]], dim=-1)
    pad = torch.cat([states["l.pad"], states["g.pad"]], dim=-1)
    for prompts in by_rule.values():
        assert torch.equal(prompts.context[:, :4], text.context[:, :4].expand(3, -1, -1))
        assert torch.equal(prompts.context[:, 4], end)
        assert torch.equal(prompts.pooled, states["pooled"])
    assert torch.equal(by_rule["P1"].context[:, 5:], end[:, None].expand(-1, 72, -1))
    assert torch.equal(by_rule["P2"].context[:, 5:], pad[:, None].expand(-1, 72, -1))
    assert torch.equal(by_rule["P3"].context[:, 5:], text.context[:, 5:].expand(3, -1, -1))
    with pytest.raises(ValueError, match="P4"):
        slots.placed(states, text, ends, "P4")


def test_an_edit_of_weight_0_is_the_picture_behind_the_texts_words():
    form, joint = fitted()
    text, ends = random_prompts(2, 9), torch.tensor([3, 5])
    states = form.apply(joint[:2])
    plain, edit = slots.placed(states, text, ends), slots.edited(states, form, text, ends, 0.0)
    assert torch.equal(plain.context, edit.context) and torch.equal(plain.pooled, edit.pooled)
    more = slots.edited(states, form, text, ends, 0.6)
    wanted = states["pooled"] + 0.6 * (text.pooled - form.readings["pooled"].offset)
    assert torch.allclose(more.pooled, wanted)
    assert torch.equal(more.context[0, :3], text.context[0, :3])
