"""What Load Projection does with a gap: captions and pictures of the user's become a centred form.

Nothing is encoded at gap 0, nor for a saved projection that has a centred form already.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...projection import (
    MIN_PICTURES,
    PICTURES_SHARE,
    VISUAL_SHARE,
    CaptionStatistics,
    Centred,
    ClipProjections,
    ImageToPromptError,
    Projection,
    broad_captions,
    picture_direction,
    text_projection_of,
    visual_direction,
    vocabulary_words,
)
from ...projection.closed_form.caption_statistics import MIN_CAPTIONS
from ...projection.regression.text_regression import METHOD
from ..host import api as host
from ..host.families.vocabulary import vocabulary
from ..host.text import eos_states
from ..host.vision import image_embeddings
from ..inputs.checks import check_socket
from ..inputs.corpus import CROP, caption_lines, given_pictures

log = logging.getLogger(__name__)


def with_gap(
    projection: Projection,
    weights: ClipProjections | None,
    gap: float,
    clip: Any,
    clip_vision: Any,
    image: Any,
    captions: str,
) -> Projection:
    """The projection at this gap; 0 leaves it as it is.

    weights: W_t and W_v of the CLIP file, None for a saved projection. image: None, a batch of
    pictures (B, H, W, C), or a list of batches of any sizes. Raises
    ImageToPromptError where something is missing, before any model runs.
    """
    if gap == 0:
        return projection
    if projection.centred is not None:
        log.info("gap %g with the saved offset; clip, image and captions are not needed", gap)
        return replace(projection, centred=replace(projection.centred, gap=gap))
    lines = _check_captions(captions)
    _check_clip(projection, clip)
    pictures = _check_pictures(projection, clip_vision, image)
    text = text_projection_of(projection) if weights is None else weights.text
    if pictures is None:
        visual = _visual_projection(projection, weights, clip_vision)
        direction, removed = visual_direction(visual), VISUAL_SHARE
    else:
        found = image_embeddings(clip_vision, pictures, CROP, projection.vision)
        direction, removed = picture_direction(torch.cat(list(found)).float()), PICTURES_SHARE
    statistics = _statistics(clip, lines)
    form = Centred.of(text, statistics, direction, removed, gap)
    if projection.method == METHOD:
        form = replace(form, matrix=projection.matrix)
    return replace(projection, centred=form)


def _check_captions(captions: str) -> list[str]:
    lines = caption_lines(captions)
    if lines and len(lines) < MIN_CAPTIONS:
        raise ImageToPromptError(
            f"at least {MIN_CAPTIONS} captions, one a line",
            f"{len(lines)}",
            "Add captions of all kinds, or leave captions empty for built-in ones.",
        )
    return lines


def _check_clip(projection: Projection, clip: Any) -> None:
    if clip is None:
        raise ImageToPromptError(
            "a CLIP to encode captions with, for a gap above 0",
            "none",
            "Connect the CLIP of an SD 1.x checkpoint (socket clip), or set gap to 0.",
        )
    check_socket(clip, "clip")
    host.check_clip(clip, projection.encoder.text_width, projection.encoder.name)


def _check_pictures(projection: Projection, clip_vision: Any, image: Any) -> list[Tensor] | None:
    """The pictures (1, H, W, 3) whose mean is to be removed; None for too few of them."""
    pictures = given_pictures(image, clip_vision)
    if pictures is None:
        return None
    encoder = projection.encoder
    check_socket(clip_vision, "clip_vision")
    host.check_clip_vision(clip_vision, encoder.joint_width, encoder.name)
    if len(pictures) < MIN_PICTURES:
        log.warning(
            "%d pictures (socket image) are too few for their mean, which needs %d: "
            "the visual projection's first direction is used instead",
            len(pictures),
            MIN_PICTURES,
        )
        return None
    return pictures


def _visual_projection(
    projection: Projection, weights: ClipProjections | None, clip_vision: Any
) -> Tensor:
    """W_v (J, V), float32, from the file or from the vision model."""
    if weights is not None and weights.visual is not None:
        return weights.visual
    if clip_vision is None:
        raise ImageToPromptError(
            "a CLIP's visual projection, for a gap above 0",
            "a file without one",
            "Load the full CLIP file, or connect Load CLIP Vision (socket clip_vision).",
        )
    encoder = projection.encoder
    check_socket(clip_vision, "clip_vision")
    weight = host.check_clip_vision(clip_vision, encoder.joint_width, encoder.name)
    return weight.detach().cpu().float()


def _statistics(clip: Any, lines: list[str]) -> CaptionStatistics:
    """Of these captions or, for none, of built-in ones."""
    words = vocabulary_words(vocabulary(clip))
    statistics = CaptionStatistics.of(eos_states(clip, lines or broad_captions(words=words)))
    log.info(
        "%d captions: mean EOS state %.2f long (%.2f of a state's length), spread %.2f, cosine "
        "%.2f among them",
        statistics.count,
        float(statistics.offset.norm()),
        statistics.ratio,
        statistics.spread,
        statistics.among,
    )
    for warning in statistics.warnings():
        log.warning("%s (captions of Load Projection)", warning)
    return statistics
