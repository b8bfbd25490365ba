"""Deep prompts on a random transformers CLIP: identity when gated off, plain attention when on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from image_to_prompt.projection import (
    DeepPrompts,
    ImageToPromptError,
    TransformersTower,
    encode_pictures,
)
from image_to_prompt.projection.adapters.deep_prompts import prompt_attention
from image_to_prompt.tests.fixtures import builders
from image_to_prompt.tests.projection import toys

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def clip():
    return toys.tiny_clip()


@pytest.fixture(scope="module")
def tower(clip):
    return TransformersTower(clip)


def prompts(gate=0.5, layers=2, heads=3, width=48):
    return DeepPrompts(
        builders.normal(layers, 5, width, seed=1), gate * builders.normal(layers, heads, seed=2)
    )


def test_the_tower_in_parts_is_the_whole_one_bit_for_bit(clip, tower):
    pixels = toys.pixels()
    whole = clip.visual_projection(clip.vision_model(pixel_values=pixels).pooler_output)
    assert torch.equal(encode_pictures(tower, pixels), whole)


def test_gates_at_zero_change_no_bit(tower):
    pixels = toys.pixels()
    off = encode_pictures(tower, pixels, prompts(gate=0.0))
    assert torch.equal(off, encode_pictures(tower, pixels))
    on = encode_pictures(tower, pixels, prompts())
    assert not torch.allclose(on, off, atol=1e-3)


def test_the_prompts_part_is_attention_written_out_head_by_head(clip):
    layer, part = clip.vision_model.encoder.layers[1], prompts()
    normed = builders.normal(2, 7, 48, seed=3)
    attention, tokens = layer.self_attn, layer.layer_norm1(part.tokens[1])
    expected = torch.zeros_like(normed)
    for head in range(3):
        rows = slice(16 * head, 16 * head + 16)
        q = normed @ attention.q_proj.weight[rows].T + attention.q_proj.bias[rows]
        k = tokens @ attention.k_proj.weight[rows].T + attention.k_proj.bias[rows]
        v = tokens @ attention.v_proj.weight[rows].T + attention.v_proj.bias[rows]
        mixed = (q @ k.T / 4.0).softmax(-1) @ v
        expected += part.gates[1, head] * mixed @ attention.out_proj.weight[:, rows].T
    assert torch.allclose(prompt_attention(layer, normed, part, 1), expected, atol=1e-5)


def test_a_picture_is_encoded_alone_as_in_a_batch(tower):
    pixels, part = toys.pixels(), prompts()
    batch = encode_pictures(tower, pixels, part)
    alone = torch.cat([encode_pictures(tower, p[None], part) for p in pixels])
    assert torch.allclose(batch, alone, atol=1e-5)


def test_the_gradient_of_a_gate_is_the_finite_difference(tower):
    tower = TransformersTower(tower._clip.double())
    pixels, step = toys.pixels(1).double(), 1e-6
    tokens, gates = prompts().tokens, prompts().gates

    def total(g):
        live = DeepPrompts(tokens, gates)
        object.__setattr__(live, "gates", g)
        return encode_pictures(tower, pixels, live).sum()

    g = gates.double().requires_grad_(True)
    (slope,) = torch.autograd.grad(total(g), g)
    shifted = gates.double()
    shifted[1, 2] += step
    difference = (total(shifted) - total(gates.double())) / step
    tower._clip.float()
    assert float(slope[1, 2]) == pytest.approx(float(difference), rel=1e-3)


@pytest.mark.parametrize("change", [{"layers": 3}, {"heads": 4}, {"width": 40}])
def test_prompts_for_another_tower_are_refused(tower, change):
    with pytest.raises(ImageToPromptError, match=r"Use (image embeddings|the CLIP vision encoder)"):
        encode_pictures(tower, toys.pixels(), prompts(**change))


@pytest.mark.parametrize(
    "tokens, gates",
    [((2, 5, 48), (3, 3)), ((2, 48), (2, 3)), ((2, 5, 48), (2,)), ((0, 5, 8), (0, 1))],
)
def test_parts_that_do_not_fit_are_refused(tokens, gates):
    with pytest.raises(ImageToPromptError, match="deep prompts"):
        DeepPrompts(torch.zeros(tokens), torch.zeros(gates))


def test_prompts_of_another_vision_width_do_not_fit_a_projection():
    with pytest.raises(ImageToPromptError, match="vision of width 48"):
        replace(builders.small_projection(), vision=prompts(width=40))
