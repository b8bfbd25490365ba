"""Prompts of SD 2.x and SDXL saved and loaded without the picture. Random weights: wiring only."""

from __future__ import annotations

import pytest
import torch

from image_to_prompt.projection import ImageToPromptError
from image_to_prompt.tests.host.family_tools import cases, embed, load, made, models
from image_to_prompt.tests.host.saved_prompts import save_prompt

__all__ = ["cases", "embed", "load", "made", "models"]  # fixtures
TEXT = {"text": "in the snow", "text_weight": 0.8, "strength": 0.9, "blend": "add, keep length"}


@pytest.fixture(scope="module")
def save(host):
    """Save Prompt on states and pooled vectors: the file's name."""

    def saved(projection, states, pooled, name):
        return save_prompt(host, projection, [[states, {"pooled_output": pooled}]], name)

    return saved


@pytest.fixture(scope="module")
def loaded(host):
    def prompt(file, clip, text="", text_weight=0.6, strength=1.0, blend="add"):
        node = host.classes["ImageToPromptLoadPrompt"]
        with torch.inference_mode():
            [conditioning] = node.execute(file, clip, text, text_weight, strength, blend).args
        [[states, extras]] = conditioning
        return states, extras["pooled_output"]

    return prompt


@pytest.mark.parametrize("name, given", [("sdxl", TEXT), ("sd2", {})])
def test_a_saved_prompt_is_the_pictures_bit_for_bit(
    cases, embed, save, loaded, models, name, given
):
    projection, clip, _ = case = cases[name]
    pictures = {"image": models.pictures[:2]}
    file = save(projection, *embed(*case, **pictures), f"{name}{len(given)}")
    found = loaded(file, clip, **given)
    wanted = embed(*case, **pictures, **given)
    assert all(torch.equal(*pair) for pair in zip(found, wanted, strict=True))


def test_another_familys_clip_is_refused_by_name(cases, embed, save, loaded, models):
    projection, _, _ = case = cases["sdxl"]
    file = save(projection, *embed(*case), "family")
    with pytest.raises(ImageToPromptError, match=r"text encoders of SDXL.*SD 2\.x"):
        loaded(file, models.sd2)


def test_a_conditioning_without_pooled_output_is_not_saved(host, cases):
    node = host.classes["ImageToPromptSavePrompt"]
    with pytest.raises(ImageToPromptError, match="pooled output"):
        node.execute([[torch.zeros(1, 77, 2048), {}]], cases["sdxl"][0], "bad")
    with pytest.raises(ImageToPromptError, match="sockets conditioning, projection"):
        extras = {"pooled_output": torch.zeros(1, 1280)}
        node.execute([[torch.zeros(1, 77, 768), extras]], cases["sdxl"][0], "bad")
