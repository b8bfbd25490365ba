"""The CONDITIONING of pictures for SD 2.x, SDXL and its refiner."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ...projection import (
    ImageToPromptError,
    Projection,
    Readings,
    apply_strength,
    picture_prompt,
    pooled_strength,
    spherical_mean,
)
from ...projection.closed_form.clip_identity import fingerprint
from ..host import api as host
from ..host.families.clip import check_family, encode_family_text
from ..host.vision import image_embeddings
from ..inputs.checks import check_socket

log = logging.getLogger(__name__)


def family_prompt(
    projection: Projection,
    readings: Readings,
    clip: Any,
    clip_vision: Any,
    pictures: Sequence[Tensor],
    weights: Sequence[float] | None,
    from_all: bool,
    crop: str,
    text: str,
    strength: float,
    text_weight: float,
    blend: str,
    pads: str,
) -> list:
    """One CONDITIONING of pictures (1, H, W, 3), as core's CLIPTextEncode gives one of texts.

    weights: of the pictures where one prompt is made from all. text_weight, blend, pads: see
    `picture_prompt`.
    """
    _check_pairing(projection, readings, clip, clip_vision)
    found = image_embeddings(clip_vision, pictures, crop, projection.vision)
    embeds = normalize(torch.cat(list(found)).float(), dim=-1)
    if from_all:
        embeds = spherical_mean(embeds, weights)
    encoded = null = encode_family_text(clip, text, readings.family)
    if strength != 1 and encoded.has_words:
        null = encode_family_text(clip, "", readings.family)
    entries = []
    for (states, extras), prompt, (nulls, _), nothing in zip(
        encoded.entries, encoded.prompts, null.entries, null.prompts, strict=True
    ):
        conditioning, pooled = picture_prompt(readings, embeds, prompt, text_weight, blend, pads)
        conditioning = apply_strength(conditioning.to(states), nulls, strength)
        pooled = pooled_strength(pooled, nothing.pooled, strength)
        _check_finite(conditioning, pooled, strength, text_weight)
        entries.append([conditioning, {**extras, "pooled_output": pooled}])
    return entries


def _check_pairing(projection: Projection, readings: Readings, clip: Any, clip_vision: Any) -> None:
    check_socket(clip, "clip")
    check_family(clip, readings.family, readings.layer)
    identity = projection.encoder
    check_socket(clip_vision, "clip_vision")
    visual = host.check_clip_vision(clip_vision, identity.joint_width, identity.name)
    if identity.visual_projection not in (None, fingerprint(visual)):
        log.warning(
            "clip_vision is not the vision encoder of the projection's CLIP, though as wide; "
            "prompts may be off. Load the one that the projection was made with."
        )


def _check_finite(
    conditioning: Tensor, pooled: Tensor, strength: float, text_weight: float
) -> None:
    if not (torch.isfinite(conditioning).all() and torch.isfinite(pooled).all()):
        raise ImageToPromptError(
            "a conditioning of finite numbers",
            f"infinite or NaN ones for text_weight {text_weight} and strength {strength}",
            "Lower text_weight and strength, and check the text encoder for NaN (socket clip).",
        )
