"""The held-out domains can be read, and their captions are made of known words."""

from __future__ import annotations

import torch

from image_to_prompt.tests.miniature.training.common import generator_of
from image_to_prompt.tests.miniature.world import domains
from image_to_prompt.tests.miniature.world.tokenizer import Tokenizer

COUNT = 40


def test_outlines_are_read_back():
    outlines = domains.sample_outlines(COUNT, generator_of(9, 0))
    found = [domains.read_outline(picture) for picture in domains.render_outlines(outlines)]
    s = outlines.scenes
    wanted = torch.stack([s.figure, s.ground, outlines.below], dim=-1)
    assert torch.equal(torch.tensor(found), wanted)


def test_pairs_are_read_back():
    pairs = domains.sample_pairs(COUNT, generator_of(9, 1))
    found = torch.tensor([domains.read_pair(p) for p in domains.render_pairs(pairs)])
    for side, half in enumerate((pairs.left, pairs.right)):
        assert torch.equal(found[:, side], torch.stack([half.shape, half.figure], dim=-1))


def test_captions_of_the_domains_can_be_encoded():
    outlines = domains.sample_outlines(COUNT, generator_of(9, 2))
    pairs = domains.sample_pairs(COUNT, generator_of(9, 3))
    captions = domains.caption_outlines(outlines) + domains.caption_pairs(pairs)
    assert Tokenizer()(captions).shape == (2 * COUNT, 77)
