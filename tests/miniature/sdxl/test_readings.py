"""Readings of pictures for SDXL, and the slots they stand in."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from . import readings, slots
from .test_conditions import random_prompts


def fitted() -> tuple[readings.Readings, torch.Tensor, dict[str, torch.Tensor]]:
    """Readings of states that are linear in 400 random embeddings, one channel far larger."""
    g = torch.Generator().manual_seed(4)
    joint = F.normalize(torch.randn(400, 96, generator=g) + 1, dim=-1)
    widths = dict(zip(readings.KINDS, (96, 96, 64, 64, 64), strict=True))
    states = {}
    for kind, width in widths.items():
        scale = torch.ones(width)
        scale[3] = 200
        states[kind] = (joint @ torch.randn(96, width, generator=g) + 0.3) * scale
    centre = joint.mean(dim=0)
    maps = {kind: readings.Reading.fit(joint - centre, y) for kind, y in states.items()}
    return readings.Readings(maps, centre), joint, states


def test_readings_recover_linear_states_up_to_their_length():
    form, joint, states = fitted()
    for kind, found in form.apply(joint).items():
        offset, scale = form.maps[kind].offset, form.maps[kind].scale
        cosine = F.cosine_similarity((found - offset) / scale, (states[kind] - offset) / scale)
        assert cosine.mean() > 0.98, kind
        lengths = ((found - offset) / scale).norm(dim=-1)
        assert torch.allclose(lengths, torch.full_like(lengths, form.maps[kind].spread), rtol=1e-3)


def test_a_constant_of_all_pictures_does_not_matter():
    form, joint, _ = fitted()
    gap = torch.randn(96, generator=torch.Generator().manual_seed(6))
    near, far = form.with_pictures(joint), form.with_pictures(joint + gap)
    kept = far.centre.norm() / (joint + gap).mean(dim=0).norm()
    assert kept > 0.99  # so many pictures: hardly shrunk
    a, b = near.apply(joint)["l.eos"], far.apply(joint + gap)["l.eos"]
    offset = form.maps["l.eos"].offset
    assert F.cosine_similarity(a - offset, b - offset).mean() > 0.99


def test_the_mean_of_two_different_pictures_is_shrunk():
    form, joint, _ = fitted()
    two = torch.stack([F.normalize(joint[0] - joint[1], dim=0), -joint[0]])
    assert form.with_pictures(two).centre.norm() < two.mean(dim=0).norm()


def test_slot_rules_differ_behind_the_end_token_only():
    form, joint, _ = fitted()
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
    form, joint, _ = fitted()
    text, ends = random_prompts(2, 9), torch.tensor([3, 5])
    states = form.apply(joint[:2])
    plain, edit = slots.placed(states, text, ends), slots.edited(states, form, text, ends, 0.0)
    assert torch.equal(plain.context, edit.context) and torch.equal(plain.pooled, edit.pooled)
    more = slots.edited(states, form, text, ends, 0.6)
    wanted = states["pooled"] + 0.6 * (text.pooled - form.maps["pooled"].offset)
    assert torch.allclose(more.pooled, wanted)
    assert torch.equal(more.context[0, :3], text.context[0, :3])
