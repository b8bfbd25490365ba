"""The host's vision model in parts, against its own `encode_image`; deep prompts on top.

Random weights: wiring and arithmetic only.
"""

from __future__ import annotations

import pytest
import torch

from image_to_prompt.projection import DeepPrompts, ImageToPromptError, encode_pictures
from image_to_prompt.tests.host import small_models
from image_to_prompt.tests.host.training_tools import generator, leftovers, weights

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def clip_vision(host):
    with torch.inference_mode():
        return small_models.host_clip_vision(small_models.reference_clip(3), host.folders)


@pytest.fixture
def vision(host):
    from image_to_prompt.nodes.host import vision as host_vision

    return host_vision


def picture() -> torch.Tensor:
    return torch.rand(1, 90, 70, 3, generator=generator(1))


def prompts(gate: float) -> DeepPrompts:
    tokens = torch.randn(small_models.LAYERS, 3, 1024, generator=generator(2))
    return DeepPrompts(tokens, torch.full((small_models.LAYERS, 16), gate))


@pytest.mark.parametrize("crop", ["center", "none"])
def test_without_prompts_it_is_the_hosts_own_encoder_bit_for_bit(clip_vision, vision, crop):
    with torch.inference_mode():
        (plain,) = vision.image_embeddings(clip_vision, [picture()], crop)
        host_own = clip_vision.encode_image(picture(), crop=crop == "center").image_embeds
        pixels = vision.preprocessed(clip_vision, picture(), crop)
        parts = encode_pictures(vision.HostTower(clip_vision, CPU), pixels)
        (closed,) = vision.image_embeddings(clip_vision, [picture()], crop, prompts(0.0))
        (opened,) = vision.image_embeddings(clip_vision, [picture()], crop, prompts(0.5))
    assert torch.equal(plain, host_own)
    assert torch.equal(parts, host_own)
    assert torch.equal(closed, host_own)
    assert not torch.allclose(opened, host_own, rtol=1e-3)


def test_gradients_reach_tokens_and_gates_and_nothing_else(clip_vision, vision):
    before = weights(clip_vision.model)
    tower = vision.HostTower(clip_vision, CPU)
    free = prompts(0.5)
    free.tokens.requires_grad_(True), free.gates.requires_grad_(True)
    pixels = vision.preprocessed(clip_vision, picture(), "center")
    with torch.inference_mode(False), torch.enable_grad():
        encode_pictures(tower, pixels, free).square().sum().backward()
    assert (free.tokens.grad.flatten(1).norm(dim=1) > 0).all()
    assert (free.gates.grad.norm(dim=1) > 0).all()
    assert not leftovers(clip_vision.model)
    after = weights(clip_vision.model)
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


def test_prompts_of_another_vision_encoder_are_refused(clip_vision, vision):
    other = DeepPrompts(torch.zeros(5, 3, 1024), torch.zeros(5, 16))
    with pytest.raises(ImageToPromptError) as refusal:
        next(vision.image_embeddings(clip_vision, [picture()], "center", other))
    assert refusal.value.subject == "vision encoder"  # to which the nodes add the socket
