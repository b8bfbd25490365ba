"""SD 2.x, SDXL and the refiner in the host: what is encoded, and the prompts that come of it.

The encoders are small and random: wiring only.
"""

from __future__ import annotations

import pytest
import torch

from image_to_prompt.projection import SDXL, load_projection, picture_prompt
from image_to_prompt.tests.host.family_models import CAPTIONS
from image_to_prompt.tests.host.family_tools import cases, core, embed, load, made, models

__all__ = ["cases", "embed", "load", "made", "models"]  # fixtures
TEXTS = [*CAPTIONS[:3], "", "a castle " * 37, "word " * 75, "(a red:1.3) dog"]
WIDTHS = {"sdxl": (2048, 1280), "refiner": (1280, 1280), "sd2": (1024, 1024)}


@pytest.mark.parametrize("name", WIDTHS)
def test_states_at_the_positions_that_are_read_are_those_of_core(models, name):
    from image_to_prompt.nodes.host.families.captions import PAD_AFTER, caption_states
    from image_to_prompt.nodes.host.families.clip import encode_family_text, family_of, layer_of

    clip = getattr(models, name)
    family = family_of(clip)
    source = family.keys[-1]
    with torch.inference_mode():
        joint, found = caption_states(clip, family, layer_of(clip, family), TEXTS, source, None)
    assert tuple(found) == (*family.reading_names[:-1], "pooled")
    for row, text in enumerate(text.replace("(", "").replace(":1.3)", "") for text in TEXTS):
        with torch.inference_mode():
            [prompt] = encode_family_text(clip, text, family).prompts
        for key in family.keys:
            end = prompt.eos[key][0]
            states = prompt.states[key][0]
            for place, slot in (("eos", end), ("pad", min(end + PAD_AFTER, 76))):
                wanted = states[slot]
                error = (found[f"{key}.{place}"][row] - wanted).abs().max()
                assert error < 1e-5 * wanted.abs().max(), (text, key, place)
        scale = prompt.pooled.abs().max()
        assert (found["pooled"][row] - prompt.pooled[0]).abs().max() < 1e-5 * scale
    assert torch.equal(joint, found["pooled"])


def test_the_joint_embedding_of_captions_is_the_files_projection_of_the_last_state(models):
    from image_to_prompt.nodes.host.families.captions import caption_states

    weight = models.weights["text_projection.weight"].float()
    with torch.inference_mode():
        joint, _ = caption_states(models.sdxl, SDXL, -2, TEXTS[:3], "l", weight)
        last = models.sdxl.clone()
        last.clip_layer(-1)
        encoder = last.cond_stage_model.clip_l.transformer
        for row, text in enumerate(TEXTS[:3]):
            tokens = last.tokenize(text)
            states = last.encode_from_tokens(tokens)[0, :, :768]
            end = [token for token, _ in tokens["l"][0]].index(49407)
            wanted = encoder.text_model.final_layer_norm(states[end]) @ weight.T
            assert (joint[row] - wanted).abs().max() < 1e-5 * wanted.abs().max()


# --- prompts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "in the snow", "a castle " * 50])
@pytest.mark.parametrize("name", WIDTHS)
def test_prompts_have_cores_shapes_start_states_and_words(cases, embed, name, text):
    projection, clip, vision = cases[name]
    states, pooled = embed(projection, clip, vision, text=text)
    plain, core_pooled = core(clip, text)
    assert states.shape == plain.shape and pooled.shape == core_pooled.shape
    assert (states.shape[-1], pooled.shape[-1]) == WIDTHS[name]
    chunks = plain.shape[1] // 77
    starts = [77 * chunk for chunk in range(chunks)]
    assert torch.equal(states[:, starts], plain[:, starts])
    first_words = slice(0, 4 if text else 1)
    assert torch.equal(states[:, first_words], plain[:, first_words])
    assert not torch.isclose(states[:, 76], plain[:, 76]).all()


@pytest.mark.parametrize("name", WIDTHS)
def test_strength_0_is_the_empty_prompt_bit_for_bit(cases, embed, name):
    projection, clip, vision = cases[name]
    for text in ("", "in the snow"):
        states, pooled = embed(projection, clip, vision, text=text, strength=0.0)
        plain, core_pooled = core(clip, "")
        assert torch.equal(states, plain) and torch.equal(pooled, core_pooled)


@pytest.mark.parametrize("pads", ["picture", "text encoder"])
def test_prompts_are_those_of_the_library(models, made, embed, pads):
    from image_to_prompt.nodes.host.families.clip import encode_family_text

    found = embed(made, models.sdxl, models.vision, text="in the snow", pads=pads)
    with torch.inference_mode():
        v = models.vision.encode_image(models.pictures[:1], crop=True).image_embeds
        [prompt] = encode_family_text(models.sdxl, "in the snow", SDXL).prompts
        wanted = picture_prompt(made.readings, v, prompt, 0.6, "add", pads)
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))


def test_order_and_copies_of_pictures_do_not_matter(models, made, embed):
    def all_of(*rows):
        image, images = models.pictures[list(rows)], "one prompt from all"
        return embed(made, models.sdxl, models.vision, image=image, images=images)

    for one, other in zip(all_of(0, 1, 2), all_of(2, 0, 1), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(all_of(0, 0), embed(made, models.sdxl, models.vision), strict=True):
        assert torch.equal(one, other)


def test_a_batch_gives_one_row_a_picture(models, made, embed):
    states, pooled = embed(made, models.sdxl, models.vision, image=models.pictures[:3])
    alone = embed(made, models.sdxl, models.vision, image=models.pictures[1:2])
    assert states.shape[0] == pooled.shape[0] == 3
    assert torch.allclose(states[1], alone[0][0], atol=1e-5)
    assert torch.allclose(pooled[1], alone[1][0], atol=1e-5)


# --- made and saved ---------------------------------------------------------------------------


def test_g_s_own_tower_serves_where_the_vision_encoder_is_g_s(models, load, embed):
    own = load(clip=models.sdxl, clip_vision=models.vision_g)
    assert own.encoder.joint_width == 1280
    states, _ = embed(own, models.sdxl, models.vision_g)
    assert states.shape == (1, 77, 2048)


def test_pictures_give_the_centre_and_captions_join_the_corpus(models, made, load):
    given = {"clip_vision": models.vision, "image": models.pictures}
    pictured = load(clip=models.sdxl, **given).readings
    assert pictured.pictures == 9 and made.readings.pictures == 0
    assert pictured.centre.any() and not made.readings.centre.any()
    # Few: random encoders say too little about words that no other caption has.
    more = load(clip=models.sdxl, corpus_size=8).readings
    assert more.captions == len(CAPTIONS) + 8 == made.readings.captions + 8


def test_a_saved_projection_encodes_nothing_again(host, models, made, load, embed, monkeypatch):
    from image_to_prompt.nodes.families import load as module

    with torch.inference_mode():
        host.classes["SaveProjection"].execute(projection=made, filename_prefix="sdxl")

    def encode(*_):
        raise AssertionError("captions were encoded")

    monkeypatch.setattr(module, "caption_states", encode)
    path = host.folders / "models" / "projections" / "sdxl_00001_.safetensors"
    assert path.stat().st_size < 20e6 and load_projection(path).readings.family == SDXL
    for inputs in ({}, {"clip": models.sdxl}):
        loaded = load(file=path.name, **inputs)
        for one, other in zip(
            embed(loaded, models.sdxl, models.vision, text="in the snow"),
            embed(made, models.sdxl, models.vision, text="in the snow"),
            strict=True,
        ):
            assert torch.equal(one, other)
    again = load(file=path.name, clip_vision=models.vision, image=models.pictures)
    assert again.readings.pictures == 9
