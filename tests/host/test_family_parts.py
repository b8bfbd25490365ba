"""Masks and frames on SDXL's projections."""

from __future__ import annotations

import torch

from image_to_prompt.tests.host.family_tools import embed, load, made, models

__all__ = ["embed", "load", "made", "models"]  # fixtures


def test_a_mask_hides_the_rest_from_clip(models, made, embed):
    mask = torch.zeros(1, 30, 40)
    mask[:, :, :20] = 1
    other = models.pictures[:1].clone()
    other[:, :, 20:] = models.pictures[1:2, :, 20:]

    def given(image, **inputs):
        return embed(made, models.sdxl, models.vision, image=image, crop="none", **inputs)

    whole = given(models.pictures[:1])
    masked = given(models.pictures[:1], mask=mask)
    cropped = given(models.pictures[:1], mask=mask, mask_use="crop to mask")
    assert not torch.allclose(masked[0], whole[0], atol=1e-3)
    assert not torch.allclose(cropped[0], whole[0], atol=1e-3)
    # The bicubic scaling takes some pixels across the mask's edge into the picture.
    assert (given(other, mask=mask)[0] - masked[0]).norm() < (given(other)[0] - whole[0]).norm()


def test_frames_pass_through_the_pictures(models, made, embed):
    pictures, inputs = models.pictures[:2], {"text": "a dog"}
    alone = embed(made, models.sdxl, models.vision, image=pictures, **inputs)
    inputs |= {"images": "travel between images", "frames": "0, 3"}
    found = embed(made, models.sdxl, models.vision, image=pictures, **inputs)
    assert found[0].shape[0] == found[1].shape[0] == 4
    for states, keys in zip(found, alone, strict=True):
        assert torch.allclose(states[[0, 3]], keys, atol=1e-4 * float(keys.abs().max()))
