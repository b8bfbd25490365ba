"""mask and frames on ImageToPromptEmbed, in the real host."""

# ruff: noqa: F811  fixtures of another module
from __future__ import annotations

import pytest
import torch

from image_to_prompt.tests.host.test_lists import mapped, same
from image_to_prompt.tests.host.test_published_arithmetic import (  # noqa: F401  fixtures
    models,
    pictures,
    projection,
    run,
)

LEFT = torch.zeros(1, 224, 224)
LEFT[:, :, :112] = 1
TRAVEL = {"images": "travel between images"}


def test_an_even_mask_gives_the_prompt_without_one_bit_for_bit(host, models, projection, pictures):
    plain = run(host, projection, models, pictures)
    for value in (1.0, 0.4):
        mask = torch.full((1, 224, 224), value)
        assert same(run(host, projection, models, pictures, mask=mask), plain)


@pytest.mark.parametrize("crop", ["center", "none"])
def test_what_is_hidden_can_be_anything(host, models, projection, pictures, crop):
    left, right = pictures[:1], pictures[1:2].clone()
    right[:, :, :112] = left[:, :, :112]
    found = [run(host, projection, models, p, mask=LEFT, crop=crop) for p in (left, right)]
    assert same(*found)
    assert not same(found[0], run(host, projection, models, left, crop=crop))
    rest = run(host, projection, models, left, mask=1 - LEFT, crop=crop)
    assert not same(found[0], rest)


def test_hidden_patches_are_those_that_attention_leaves_out(host, models, projection, pictures):
    """The independent reference: transformers' layers with a mask over keys."""
    reference = models[0]
    found = run(host, projection, models, pictures[:1], mask=LEFT)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    pixels = (((255 * pictures[:1]).clamp(0, 255).round() / 255 - mean) / std).movedim(-1, 1)
    vision = reference.vision_model
    hidden = vision.pre_layrnorm(vision.embeddings(pixels))
    seen = torch.tensor([True] + [True, True, False, False] * 4)  # four patches of 56 a row
    for layer in vision.encoder.layers:
        x, a = layer.layer_norm1(hidden), layer.self_attn
        q, k, v = (
            p(x).unflatten(-1, (16, -1)).transpose(1, 2) for p in (a.q_proj, a.k_proj, a.v_proj)
        )
        logits = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
        weights = logits.masked_fill(~seen, float("-inf")).softmax(dim=-1)
        hidden = hidden + a.out_proj((weights @ v).transpose(1, 2).flatten(-2))
        hidden = hidden + layer.mlp(layer.layer_norm2(hidden))
    embeds = reference.visual_projection(vision.post_layernorm(hidden[:, 0]))
    wanted = projection.apply(embeds)
    assert torch.allclose(found[0][0][0, 5], wanted[0], atol=2e-3 * 27.5)


def test_masks_go_with_their_pictures(host, models, projection, pictures):
    both = torch.cat([LEFT, 1 - LEFT])
    found = run(host, projection, models, pictures[:2], mask=both)[0][0]
    for index in range(2):
        one = run(host, projection, models, pictures[index, None], mask=both[index, None])
        assert torch.equal(found[index : index + 1], one[0][0])
    listed = mapped(host, projection, models, list(pictures[:2].split(1)), mask=[LEFT, 1 - LEFT])
    assert [torch.equal(found[i], item[0][0][0]) for i, item in enumerate(listed)] == [True] * 2


def test_crop_to_mask_encodes_the_square_around_it(host, models, projection, pictures):
    mask = torch.zeros(1, 224, 224)
    mask[:, 62:162, 62:162] = 1
    found = run(host, projection, models, pictures[:1], mask=mask, mask_use="crop to mask")
    assert same(found, run(host, projection, models, pictures[:1, 47:177, 47:177]))


@pytest.mark.parametrize(
    "mask, words",
    [
        (torch.zeros(1, 64, 64), "an empty one"),  # as Load Image gives for pictures without alpha
        (torch.zeros(1, 224, 224), "an empty one"),
        (torch.ones(1, 64, 64), "the picture's size, 224x224"),
        (torch.ones(2, 224, 224), "one for each of 3 pictures"),
        (torch.full((1, 224, 224), float("nan")), "finite numbers"),
        (torch.ones(1, 1, 224, 224), "shape"),
        (torch.ones(224, 224, dtype=torch.int64), "shape"),
        ("mask", "str"),
    ],
)
@pytest.mark.parametrize("use", ["hide the rest", "crop to mask"])
def test_unfit_masks_are_refused(host, models, projection, pictures, mask, words, use):
    from image_to_prompt.projection import ImageToPromptError

    with pytest.raises(ImageToPromptError, match=words) as raised:
        run(host, projection, models, pictures, mask=mask, mask_use=use)
    assert "mask" in str(raised.value)


def test_a_mask_that_the_crop_cuts_off_is_refused(host, models, projection):
    from image_to_prompt.projection import ImageToPromptError

    mask = torch.zeros(1, 100, 400)
    mask[:, :, :50] = 1
    wide = torch.rand(1, 100, 400, 3)
    with pytest.raises(ImageToPromptError, match="crop center"):
        run(host, projection, models, wide, mask=mask)
    run(host, projection, models, wide, mask=mask, crop="none")


# --- frames -------------------------------------------------------------------------------------


def test_at_key_frames_the_prompts_of_the_pictures_stand(host, models, projection, pictures):
    alone = run(host, projection, models, pictures, "a dog")[0][0]
    found = run(host, projection, models, pictures, "a dog", frames="0, 4, 6", **TRAVEL)[0]
    assert found[0].shape[0] == 7 and torch.equal(found[0][[0, 4, 6]], alone)
    assert found[1]["pooled_output"].shape[0] == 7
    assert torch.isfinite(found[0]).all()


def test_a_list_gives_each_frame_its_factors(host, models, projection, pictures):
    strengths, weights = [1.0, 0.5, 0.0], [0.6, 0.6, 0.6, 1.2]
    (found,) = mapped(
        host,
        projection,
        models,
        list(pictures[:2].split(1)),
        text="a dog",
        strength=strengths,
        text_weight=weights,
        frames="0, 3",
        **TRAVEL,
    )
    assert len(found[0][0]) == 4
    plain = run(host, projection, models, pictures[:2], "a dog", frames="0, 3", **TRAVEL)[0][0]
    assert torch.equal(found[0][0][0], plain[0])
    empty = run(host, projection, models, pictures[:1], "a dog", strength=0.0)[0][0]
    assert torch.equal(found[0][0][2], empty[0])
    last = run(host, projection, models, pictures[1:2], "a dog", strength=0.0, text_weight=1.2)
    assert torch.equal(found[0][0][3], last[0][0][0])


def test_without_frames_the_pictures_are_sixteen_frames_apart(host, models, projection, pictures):
    found = run(host, projection, models, pictures[:2], **TRAVEL)[0][0]
    alone = run(host, projection, models, pictures[:2])[0][0]
    assert len(found) == 17 and torch.equal(found[[0, 16]], alone)


@pytest.mark.parametrize(
    "frames, words",
    [("0, 4", "3 key frames"), ("4, 2, 8", "rising"), ("0, x, 2", "whole numbers"), (3, "text")],
)
def test_unfit_frames_are_refused(host, models, projection, pictures, frames, words):
    from image_to_prompt.projection import ImageToPromptError

    with pytest.raises(ImageToPromptError, match=words) as raised:
        run(host, projection, models, pictures, frames=frames, **TRAVEL)
    assert "frames" in str(raised.value)


def test_more_factors_than_frames_are_refused(host, models, projection, pictures):
    from image_to_prompt.projection import ImageToPromptError

    images = list(pictures[:2].split(1))
    with pytest.raises(ImageToPromptError, match="each of 2 frames"):
        mapped(host, projection, models, images, strength=[1.0] * 3, frames="0, 1", **TRAVEL)
