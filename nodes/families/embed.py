"""The CONDITIONING of image embeddings for SD 2.x, SDXL and its refiner."""

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
from ..host.families.clip import encode_family_text
from ..host.vision import image_embeddings
from ..inputs.checks import check_finite
from ..inputs.embed_inputs import FROM_ALL, SLOTS, TRAVEL


def family_embeds(
    projection: Projection,
    clip_vision: Any,
    pictures: Sequence[Tensor],
    crop: str,
    masks: Sequence[Tensor] | None = None,
) -> Tensor:
    """Unit image embeddings (B, J), joint CLIP space, of pictures (1, H, W, 3).

    With what training corrected in them. masks: see `image_embeddings`.
    """
    found = image_embeddings(clip_vision, pictures, crop, projection.vision, masks)
    return normalize(projection.corrected(torch.cat(list(found))).float(), dim=-1)


def family_prompt(
    readings: Readings,
    clip: Any,
    embeds: Tensor,
    text: str,
    factors: Sequence[tuple[float, float]],
    blend: str,
    pads: str,
) -> list:
    """One CONDITIONING of image embeddings, as core's CLIPTextEncode gives one of texts.

    embeds: (B, J), joint CLIP space, of any length. factors: text_weight and strength, of all rows
    or of each. blend, pads: see `picture_prompt`.
    """
    encoded = null = encode_family_text(clip, text, readings.family)
    if encoded.has_words and any(strength != 1 for _, strength in factors):
        null = encode_family_text(clip, "", readings.family)
    split = [embeds] if len(set(factors)) == 1 else embeds.split(1)
    entries = []
    for (states, extras), prompt, (nulls, _), nothing in zip(
        encoded.entries, encoded.prompts, null.entries, null.prompts, strict=True
    ):
        conditioning, pooled = [], []
        for part, (text_weight, strength) in zip(split, factors, strict=False):
            found, vector = picture_prompt(readings, part, prompt, text_weight, blend, pads)
            conditioning.append(apply_strength(found.to(states), nulls, strength))
            pooled.append(pooled_strength(vector, nothing.pooled, strength))
            check_finite([conditioning[-1], pooled[-1]], text_weight, strength)
        entries.append([torch.cat(conditioning), {**extras, "pooled_output": torch.cat(pooled)}])
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
