"""The world keeps its promises, and the oracle reads it back."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from image_to_prompt.tests.miniature.training.common import generator_of
from image_to_prompt.tests.miniature.world.captions import FULL, PARTIAL, write
from image_to_prompt.tests.miniature.world.oracle import agreement, describe, read
from image_to_prompt.tests.miniature.world.scenes import (
    COLOURS,
    SHAPES,
    combinations,
    render,
    sample,
)
from image_to_prompt.tests.miniature.world.tokenizer import (
    END,
    LENGTH,
    START,
    Tokenizer,
    end_positions,
)

COUNT = 300


@pytest.fixture(scope="module")
def scenes():
    return sample(COUNT, "all", generator_of(1, 0))


def blurred(pictures: Tensor, sigma: float) -> Tensor:
    axis = torch.arange(-3, 4).float()
    line = torch.exp(-axis.square() / (2 * sigma**2))
    kernel = torch.outer(line, line)
    kernel = (kernel / kernel.sum()).expand(3, 1, 7, 7)
    return F.conv2d(F.pad(pictures, (3,) * 4, mode="replicate"), kernel, groups=3)


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.0, 0.8, 1.2])
def test_the_oracle_reads_real_renders_even_blurred(scenes, sigma):
    pictures = render(scenes)
    found = agreement(read(blurred(pictures, sigma) if sigma else pictures), scenes)
    right = found["shape"] & found["figure_colour"] & found["ground_colour"]
    assert right.float().mean() >= 0.99
    assert found["position_error"].max() < 0.5
    assert found["size_error"].max() < 1.5


@pytest.mark.slow
def test_the_oracle_reads_the_rotation(scenes):
    seen = read(render(scenes)).scenes
    turns = (scenes.shape > 0) & (scenes.shape < 5)  # circle and ring have none
    assert (seen.angle - scenes.angle)[turns].abs().max() < 0.03


def test_the_oracle_does_not_guess():
    noise = torch.rand(10, 3, 64, 64, generator=generator_of(2, 0))
    flat = torch.full((1, 3, 64, 64), 0.2)
    halves = torch.zeros(1, 3, 64, 64)
    halves[:, 0, :, 32:] = 1
    for pictures in (noise, flat, halves):
        assert not read(pictures).readable.any()
    assert describe(flat[0]) is None


def test_the_oracle_notices_a_wrong_shape(scenes):
    found = agreement(read(render(scenes[:20])), scenes[1:21])
    same = scenes.shape[:20] == scenes.shape[1:21]
    assert torch.equal(found["shape"], same)


def test_held_out_combinations_never_occur_in_training():
    train = {tuple(row) for row in combinations("train").tolist()}
    test = {tuple(row) for row in combinations("test").tolist()}
    assert not train & test
    assert len(train | test) == len(SHAPES) * len(COLOURS) * (len(COLOURS) - 1)
    for i, j in ((0, 1), (0, 2), (1, 2)):  # but every pair of attributes does
        assert {(row[i], row[j]) for row in test} <= {(row[i], row[j]) for row in train}


def test_every_caption_is_made_of_known_words():
    captions = [write(t, row) for t in (*FULL, *PARTIAL) for row in combinations("all")[::5]]
    ids = Tokenizer()(captions)
    ends = end_positions(ids)
    assert ids.shape == (len(captions), LENGTH)
    assert (ids[:, 0] == START).all() and (ids[:, -1] == END).all()
    assert (ids[torch.arange(len(ids)), ends - 1] != END).all()


def test_unknown_words_are_refused():
    with pytest.raises(ValueError, match="elephant"):
        Tokenizer()(["a red elephant"])
