"""Mix, Layout, and a text weight for each frame, with SD 2.x and SDXL in the host.

The encoders are small and random: wiring only.
"""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from image_to_prompt.projection import (
    Concept,
    only,
    picture_prompt,
    swap,
    text_projection_of,
    without,
)
from image_to_prompt.tests.host.family_tools import cases, embed, load, made, models

__all__ = ["cases", "embed", "load", "made", "models"]  # fixtures
WORDS = ("a cat", "a dog", "a castle", "a river")
FAMILIES = ("sdxl", "sd2")  # the refiner's encoder is one of SDXL's
MODES = ("take from image_b", "only this", "all but this")


@pytest.fixture(scope="module")
def mix(host, models):
    """Image To Prompt Mix's states and pooled vectors for a case of `cases`."""

    def mixed(case, **changes):
        projection, clip, clip_vision = case
        inputs = {
            "image_a": models.pictures[:2], "image_b": models.pictures[2:3], "mode": MODES[0],
            "concept": "own words", "words": ", ".join(WORDS), "amount": 1.0, "text": "",
            "text_weight": 0.6, "strength": 1.0, "crop": "center",
        }  # fmt: skip
        with torch.inference_mode():
            [conditioning] = (
                host.classes["ImageToPromptMix"]
                .execute(
                    projection=projection, clip=clip, clip_vision=clip_vision, **inputs | changes
                )
                .args
            )  # fmt: skip
        [[states, extras]] = conditioning
        return states, extras["pooled_output"]

    return mixed


@pytest.mark.parametrize("name, mode", zip(FAMILIES, MODES[:2], strict=True))
def test_amount_0_is_embeds_own_prompt_bit_for_bit(cases, embed, mix, models, name, mode):
    given = {"text": "in the snow", "strength": 0.8}
    found = mix(cases[name], mode=mode, amount=0.0, **given)
    plain = embed(*cases[name], image=models.pictures[:2], **given)
    assert all(torch.equal(*pair) for pair in zip(found, plain, strict=True))


@pytest.mark.parametrize("name, mode", [*[("sdxl", mode) for mode in MODES], ("sd2", MODES[1])])
def test_mix_is_the_librarys_arithmetic(cases, mix, models, name, mode):
    from image_to_prompt.nodes.host.families.captions import caption_states
    from image_to_prompt.nodes.host.families.clip import encode_family_text

    projection, clip, clip_vision = cases[name]
    with torch.inference_mode():
        each = [
            clip_vision.encode_image(picture).image_embeds for picture in models.pictures.split(1)
        ]
        v = torch.cat(each).float()
    readings = projection.readings.with_pictures(v.clone())
    assert readings.centre.norm() > 0.01
    projection = projection.with_readings(readings)
    found = mix((projection, clip, clip_vision), mode=mode, amount=0.7)
    with torch.inference_mode():
        a, b = v[:2], v[2:3]
        key = {"sdxl": "l", "sd2": "h"}[name]
        weight = text_projection_of(projection)
        joint, _ = caption_states(clip, readings.family, readings.layer, WORDS, key, weight)
        mean = (readings.direction, readings.centre)
        concept = Concept.of(joint)
        x = {
            MODES[0]: lambda: swap(a, b, concept, 0.7),
            MODES[1]: lambda: only(a, concept, 0.7, *mean),
            MODES[2]: lambda: without(a, concept, 0.7, *mean),
        }[mode]()
        [empty] = encode_family_text(clip, "", readings.family).prompts
        wanted = picture_prompt(readings, normalize(x, dim=-1), empty)
        plain = picture_prompt(readings, a, empty)
    for mine, library, unmixed in zip(found, wanted, plain, strict=True):
        away, change = ((mine - other).abs().max() for other in (library, unmixed))
        assert away < 0.02 * change, (float(away), float(change))


def test_the_projection_of_g_encodes_the_words_with_g(load, mix, models):
    own = load(clip=models.sdxl, clip_vision=models.vision_g)
    case = (own, models.sdxl, models.vision_g)
    taken, _ = mix(case)
    alone, _ = mix(case, amount=0.0)
    assert taken.shape == (2, 77, 2048) and not torch.allclose(taken, alone, atol=1e-3)


def side_by_side(models):
    return torch.cat([models.pictures[:1], models.pictures[1:2]], dim=2)


def laid_out(host, case, picture, mode):
    """Image To Prompt Layout's CONDITIONING of two tiles with a text."""
    projection, clip, clip_vision = case
    with torch.inference_mode():
        [found] = (
            host.classes["ImageToPromptLayout"]
            .execute(
                projection=projection, clip=clip, clip_vision=clip_vision, image=picture,
                tiles="2x1", mode=mode, text="in the snow", text_weight=0.6, strength=1.0,
                whole=0.25, feather=0.2,
            )
            .args
        )  # fmt: skip
    return found


def test_layout_gives_each_tile_its_own_pictures_prompt(host, cases, embed, models):
    case, picture = cases["sdxl"], side_by_side(models)
    found = laid_out(host, case, picture, "areas")
    assert [extras.get("strength") for _, extras in found] == [0.25, None, None]
    parts = (picture, models.pictures[:1], models.pictures[1:2])
    for (states, extras), part in zip(found, parts, strict=True):
        wanted, pooled = embed(*case, image=part, text="in the snow", crop="none")
        assert torch.equal(states, wanted) and torch.equal(extras["pooled_output"], pooled)


def test_tiles_that_share_slots_keep_states_of_their_own(host, cases, embed, models):
    case = cases["sdxl"]
    [[states, extras]] = laid_out(host, case, side_by_side(models), "slots")
    given = {"text": "in the snow", "crop": "none"}
    (left, first), (right, second) = (
        embed(*case, image=models.pictures[n : n + 1], **given) for n in (0, 1)
    )
    assert torch.equal(states[:, :4], left[:, :4]) and torch.equal(states[:, :4], right[:, :4])
    assert torch.equal(states[:, 4:40], left[:, 4:40])
    assert torch.equal(states[:, 41:], right[:, 41:])
    assert torch.allclose(extras["pooled_output"], (first + second) / 2, atol=1e-5)


def test_pictures_share_slots_by_their_weights(cases, embed, models):
    given = {"text": "in the snow", "strength": 0.8}
    alone, _ = embed(*cases["sdxl"], image=models.pictures[:2], **given)
    given |= {"image": models.pictures[:2], "image_weights": "2, 1"}
    _, mean = embed(*cases["sdxl"], images="one prompt from all", **given)
    states, pooled = embed(*cases["sdxl"], images="one prompt from all, slots shared", **given)
    assert states.shape == (1, 77, 2048) and torch.equal(pooled, mean)
    own = [
        [torch.allclose(states[0, slot], alone[row, slot], atol=1e-4) for slot in range(77)]
        for row in (0, 1)
    ]
    assert all(first or second for first, second in zip(*own, strict=True))
    assert all(own[0][:4]) and all(own[1][:4])  # the start and the words
    assert (sum(own[0][4:]), sum(own[1][4:])) in ((48, 25), (49, 24), (50, 23))


def test_a_picture_less_itself_is_the_mean_prompt(cases, embed, models):
    picture = models.pictures[[0, 0]]
    given = {"image": picture, "images": "one prompt from all", "image_weights": "1, -1"}
    states, pooled = embed(*cases["sdxl"], **given)
    readings = cases["sdxl"][0].readings.readings
    keys = cases["sdxl"][0].readings.family.keys
    for slot, place in ((1, "eos"), (2, "pad"), (76, "pad")):
        wanted = torch.cat([readings[f"{key}.{place}"].offset for key in keys])
        assert torch.allclose(states[0, slot], wanted, atol=1e-3)
    assert torch.allclose(pooled[0], readings["pooled"].offset, atol=1e-3)


def test_every_frame_has_its_own_text_weight_and_strength(host, cases, embed, models):
    given = {"image": models.pictures[:2], "images": "travel between images", "frames": "0, 2"}
    weights, strengths = [0.2, 0.6, 1.0], [1.0, 0.5, 0.0]
    projection, clip, clip_vision = case = cases["sdxl"]
    lists = {
        "projection": projection, "clip": clip, "clip_vision": clip_vision, "text": "in the snow",
        "crop": "center", **given,
    }  # fmt: skip
    inputs = {k: [v] for k, v in lists.items()} | {"text_weight": weights, "strength": strengths}
    with torch.inference_mode():
        [[conditioning]] = host.classes["ImageToPromptEmbed"].execute(**inputs).args
    [[states, extras]] = conditioning
    for row, (weight, strength) in enumerate(zip(weights, strengths, strict=True)):
        wanted, pooled = embed(
            *case, text="in the snow", text_weight=weight, strength=strength, **given
        )
        assert torch.allclose(states[row], wanted[row], atol=1e-4)
        assert torch.allclose(extras["pooled_output"][row], pooled[row], atol=1e-4)
