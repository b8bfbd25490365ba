"""Rows of the centred closed form, and the offset alone as a control without any picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor
from transformers import CLIPModel

from image_to_prompt.projection import (
    PICTURES_SHARE,
    VISUAL_SHARE,
    CaptionStatistics,
    Centred,
    ClipIdentity,
    Projection,
    invert,
    picture_direction,
    visual_direction,
)
from image_to_prompt.projection.closed_form.inverse import PAPER_CUTOFF

from ..sampling import Miniature
from ..training.common import generator_of
from ..world.scenes import render, sample

CAPTIONS = 300
_CAPTION_SEED, _PICTURE_SEED = 31, 32


def closed_projection(clip: CLIPModel, norm: float) -> Projection:
    """SD-IPC on the narrow CLIP: the paper's cutoff, whose norm is scaled to the width."""
    text, visual = clip.text_projection.weight, clip.visual_projection.weight
    inverse = invert(text, "pseudo-inverse", PAPER_CUTOFF)
    identity = ClipIdentity.of(text, visual)
    kept = (inverse.cutoff, inverse.kept, norm)
    return Projection(inverse.matrix, inverse.singular_values, identity, "pseudo-inverse", *kept)


def centred_projections(mini: Miniature, states: Tensor, norm: float) -> dict[str, Projection]:
    """Row name -> projection; states: EOS states (M, 96) of captions, of which 300 are used."""
    pictures = render(sample(32, "train", generator_of(_PICTURE_SEED, 0)))
    return centred_rows(mini.clip, states, norm, mini.image_embeds(pictures))


def centred_rows(
    clip: CLIPModel, states: Tensor, norm: float, embeds: Tensor
) -> dict[str, Projection]:
    """Row name -> projection; embeds (32, 96) of pictures, in joint CLIP space, not normalised."""
    order = torch.randperm(len(states), generator=generator_of(_CAPTION_SEED, 0))
    statistics = CaptionStatistics.of(states[order[:CAPTIONS]])
    closed = closed_projection(clip, norm)

    def centred(direction: Tensor, removed: float, gap: float = 1.0) -> Projection:
        W = clip.text_projection.weight
        return replace(closed, centred=Centred.of(W, statistics, direction, removed, gap))

    few, many = (picture_direction(embeds[:count]) for count in (16, 32))
    visual = visual_direction(clip.visual_projection.weight)
    return {
        "centred": centred(visual, VISUAL_SHARE),
        "centred_16": centred(few, PICTURES_SHARE),
        "centred_32": centred(many, PICTURES_SHARE),
        "gap_half": centred(few, PICTURES_SHARE, 0.5),
    }


def control(projections: Mapping[str, Projection]) -> Tensor:
    """The offset alone (96,), at the length of an EOS state: no picture in it."""
    form = projections["centred"].centred
    return form.length * form.offset / form.offset.norm()
