"""Masks as attention biases and as crops."""

from __future__ import annotations

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from image_to_prompt.projection import ImageToPromptError
from image_to_prompt.projection.regions.patch_mask import (
    HIDDEN,
    key_bias,
    patch_weights,
    square_around,
)

SIDE, PATCH = 32, 8


def test_weights_are_the_covered_share_of_each_patch():
    mask = torch.zeros(1, 5, 4)  # the fifth row is behind the last whole patch
    mask[0, :2, :1] = 1
    mask[0, 4] = 1
    assert patch_weights(mask, 2).tolist() == [[0.5, 0, 0, 0]]


def test_an_even_mask_adds_nothing_and_only_proportions_count():
    assert not key_bias(torch.full((1, 4), 0.3)).any()
    weights = torch.tensor([[0.2, 0.4, 0.0, 0.8]])
    assert torch.allclose(key_bias(weights), key_bias(0.25 * weights), atol=1e-6)
    bias = key_bias(weights)[0]
    assert bias[0] == 0 and bias[3] == HIDDEN and bias[4] == 0
    assert torch.allclose(bias[[1, 2]].exp(), torch.tensor([0.25, 0.5]))


def test_a_mask_that_covers_nothing_is_refused():
    for give in (lambda: key_bias(torch.zeros(2, 4)), lambda: square_around(torch.zeros(9, 9))):
        with pytest.raises(ImageToPromptError, match="an empty one") as raised:
            give()
        assert raised.value.subject == "mask"


@pytest.fixture(scope="module")
def vision():
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=PATCH,
    )
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = CLIPVisionModel(config).eval().requires_grad_(False)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return getattr(model, "vision_model", model)


def encode(vision, pixels, bias):
    hidden = vision.pre_layrnorm(vision.embeddings(pixels))
    mask = bias[:, None, None].expand(-1, 1, hidden.shape[1], -1)
    for layer in vision.encoder.layers:
        hidden = hidden + layer.self_attn(layer.layer_norm1(hidden), attention_mask=mask)[0]
        hidden = hidden + layer.mlp(layer.layer_norm2(hidden))
    return hidden[:, 0]


def test_nothing_of_what_is_hidden_reaches_the_class_token(vision):
    """The pixels outside of the mask can be anything; those inside count."""
    drawn = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(1, SIDE, SIDE)
    mask[:, :16, 8:24] = 1
    bias = key_bias(patch_weights(mask, PATCH))
    inside = torch.where(mask.bool(), drawn[:1], drawn[1:2])
    one, other = encode(vision, drawn[:1], bias), encode(vision, inside, bias)
    assert torch.equal(one, other)
    changed = torch.where(mask.bool(), drawn[1:2], drawn[:1])
    assert not torch.allclose(one, encode(vision, changed, bias), atol=1e-2)


def test_a_patch_of_half_the_weight_counts_as_half_a_patch(vision):
    """Two copies of a key at weight one half are one key: softmax sees the sum."""
    logits = torch.tensor([0.3, 1.2, -0.4])
    once = logits.softmax(0)
    bias = key_bias(torch.tensor([[1.0, 0.5, 0.5]]))[0, 1:]
    twice = (torch.tensor([0.3, 1.2, 1.2]) + bias).softmax(0)
    assert torch.allclose(twice[1] + twice[2], logits[:2].softmax(0)[1])
    assert once.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    "rows, columns, expected",
    [
        ((10, 20), (40, 44), (slice(8, 21), slice(35, 48))),  # side 13 = ceil(1.3 * 10)
        ((0, 4), (0, 10), (slice(0, 13), slice(0, 13))),  # moved inside
        ((0, 30), (5, 95), (slice(0, 50), slice(0, 100))),  # longer than the other side
    ],
)
def test_the_crop_is_a_square_around_the_mask_inside_the_picture(rows, columns, expected):
    mask = torch.zeros(50, 100)
    mask[slice(*rows), slice(*columns)] = 0.7
    mask[49, 99] = 0.1  # a faint trace is no part of what is covered
    found = square_around(mask)
    assert found == expected
