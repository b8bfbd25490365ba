"""Weights of cross-attention blocks: presets and their text."""

from __future__ import annotations

import pytest

from image_to_prompt.projection import ImageToPromptError
from image_to_prompt.projection.prompt.block_weights import (
    SD1_BLOCKS,
    SDXL_BLOCKS,
    BlockWeights,
    parse_block_weights,
    preset_weights,
)


def test_the_blocks_are_those_of_the_published_unets():
    assert len(SD1_BLOCKS) == 16 and len(SDXL_BLOCKS) == 11
    assert SD1_BLOCKS[6] == SDXL_BLOCKS[4] == ("middle", 0)
    assert SD1_BLOCKS[5] == ("input", 8) and SD1_BLOCKS[-1] == ("output", 11)


def test_presets_name_the_blocks_that_users_know():
    """InstantStyle: up_blocks.0.attentions.1 is style, down_blocks.2.attentions.1 composition."""
    assert preset_weights("style", 2048).weights == {("output", 1): 1.0}
    assert preset_weights("composition", 2048).weights == {("input", 8): 1.0}
    composition = preset_weights("composition", 768).weights
    assert composition == {("input", 7): 0.25, ("input", 8): 1.0}
    style = preset_weights("style", 768)
    assert not style.weights.keys() & {*composition, ("middle", 0), ("output", 3), ("output", 4)}
    assert len(style.weights) == 11
    both = preset_weights("style and composition", 768).weights
    assert both == {**style.weights, **composition}


@pytest.mark.parametrize("width, blocks", [(768, SD1_BLOCKS), (2048, SDXL_BLOCKS)])
def test_inner_and_outer_blocks_share_out_all_blocks(width, blocks):
    inner, outer = (
        {block for block in blocks if preset_weights(name, width).of(block)}
        for name in ("inner blocks", "outer blocks")
    )
    assert inner | outer == set(blocks) and not inner & outer
    assert {("input", 7), ("input", 8), ("middle", 0)} <= inner
    deepest = max(n for kind, n in inner if kind == "output")
    assert deepest == {768: 5, 2048: 2}[width]  # the last output block at the second resolution


@pytest.mark.parametrize(
    "text, block, weight",
    [
        ("input 4: 1", ("input", 4), 1),
        ("in4=0.5", ("input", 4), 0.5),
        ("OUTPUT 3-5: -.5", ("output", 4), -0.5),
        ("output 3-5: 1", ("output", 6), 0),
        ("middle: 1", ("middle", 0), 1),
        ("mid 0: 1", ("middle", 0), 1),
        ("rest: 0.25, in4: 1", ("output", 3), 0.25),
        ("3: 1; 6: 0.5", ("middle", 0), 0.5),
        ("4-5: 2", ("input", 8), 2),
        ("in 1: 1, in 1: 0.5", ("input", 1), 0.5),
        (", ".join(["0"] * 15 + ["3"]), ("output", 11), 3),
    ],
)
def test_texts_are_read(text, block, weight):
    assert parse_block_weights(text, 768).of(block) == weight


def test_numbers_count_the_blocks_of_the_width():
    assert parse_block_weights("6: 1", 2048).of(("output", 1)) == 1
    assert parse_block_weights("input 4: 1", 640).of(("input", 4)) == 1  # names need no width


@pytest.mark.parametrize(
    "text",
    [
        *("", " ,; ", "1, 2", "input: 1", "left 3: 1", "3", "16: 1", "3-2: 1", "in 4: x"),
        *("in 4: nan", "in 4: 11", "rest: inf", "in 4: 1: 2", "in 4 5: 1"),
        *("0" * 400 + ": 1", "in 9999: 1"),
    ],
)
def test_texts_that_name_no_weights_are_refused(text):
    with pytest.raises(ImageToPromptError) as raised:
        parse_block_weights(text, 768)
    assert raised.value.subject == "block weights" and len(str(raised.value)) < 1000


def test_unknown_presets_and_families_are_refused():
    for preset, width in (("mood", 768), ("style", 640)):
        with pytest.raises(ImageToPromptError):
            preset_weights(preset, width)
    with pytest.raises(ImageToPromptError, match="width 640"):
        parse_block_weights("3: 1", 640)


def test_one_weight_for_all_is_recognised():
    assert parse_block_weights(", ".join(["1"] * 16), 768).constant == 1
    assert parse_block_weights(", ".join(["0"] * 16), 768).constant == 0
    assert parse_block_weights("rest: 1", 768).constant == 1
    assert BlockWeights({("input", 1): 1.0}, 1.0).constant == 1
    assert preset_weights("style", 768).constant is None
    assert preset_weights("style", 768).mean(768) == pytest.approx(11 / 16)
