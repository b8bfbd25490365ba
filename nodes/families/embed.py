"""The CONDITIONING of pictures for SD 2.x, SDXL and its refiner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
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
from ...projection.prompt.travel import travel
from ..host.families.clip import check_family, encode_family_text
from ..host.vision import image_embeddings
from ..inputs.checks import check_finite, check_socket
from ..inputs.embed_inputs import FROM_ALL, SLOTS, TRAVEL
from ..prompts.rows import check_vision_encoder


def family_prompt(
    projection: Projection,
    readings: Readings,
    clip: Any,
    clip_vision: Any,
    pictures: Sequence[Tensor],
    masks: Sequence[Tensor] | None,
    crop: str,
    combine: Callable[[Tensor], Tensor],
    text: str,
    factors: Sequence[tuple[float, float]],
    blend: str,
    pads: str,
) -> list:
    """One CONDITIONING of pictures (1, H, W, 3), as core's CLIPTextEncode gives one of texts.

    masks: see `image_embeddings`. combine: from `combining`. factors: text_weight and strength,
    the same for all rows. blend, pads: see `picture_prompt`.
    """
    if len(set(factors)) > 1:
        raise ImageToPromptError(
            "one text_weight and one strength for all frames of this model",
            f"{len(set(factors))} different ones",
            "Give single values, or use an SD 1.x checkpoint.",
        )
    text_weight, strength = factors[0]
    _check_pairing(projection, readings, clip, clip_vision)
    found = image_embeddings(clip_vision, pictures, crop, projection.vision, masks)
    embeds = combine(normalize(torch.cat(list(found)).float(), dim=-1))
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
        check_finite([conditioning, pooled], text_weight, strength)
        entries.append([conditioning, {**extras, "pooled_output": pooled}])
    return entries


def combining(
    mode: str, weights: Sequence[float] | None, keys: Sequence[int]
) -> Callable[[Tensor], Tensor]:
    """What an option of `images` makes of image embeddings (B, J) of length 1.

    weights: of the pictures where one prompt is made from all. keys: key frames. Raises
    ImageToPromptError for an option that needs the slots of SD 1.x.
    """
    if mode == SLOTS:
        raise ImageToPromptError(
            f"a projection for SD 1.x, for images '{SLOTS}'",
            "one for SD 2.x or SDXL",
            "Choose another option of images.",
        )
    if mode == TRAVEL:
        return partial(travel, frames=keys)
    return partial(spherical_mean, weights=weights) if mode in FROM_ALL else torch.clone


def _check_pairing(projection: Projection, readings: Readings, clip: Any, clip_vision: Any) -> None:
    check_socket(clip, "clip")
    check_socket(clip_vision, "clip_vision")
    check_family(clip, readings.family, readings.layer)
    check_vision_encoder(clip_vision, projection)
