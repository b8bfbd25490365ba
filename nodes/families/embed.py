"""The CONDITIONING of image embeddings for SD 2.x, SDXL and its refiner."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ...projection import EncodedPrompt, Projection, Readings, shared_slots
from ...projection.families.several import States, by_slots, mean_states, shared_states
from ...projection.families.slots import states_prompt
from ...projection.prompt.travel import travel
from ..host.vision import image_embeddings
from ..inputs.embed_inputs import FROM_ALL, SLOTS, TRAVEL
from .entries import Made, text_entries


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
    pictures: Sequence[States],
    text: str,
    factors: Sequence[tuple[float, float]],
    blend: str,
    pads: str,
    slots: Tensor | None = None,
) -> list:
    """One CONDITIONING of pictures' states, as core's CLIPTextEncode gives one of texts.

    pictures: text states (B, D) by the reading's name, all at once or one each for the factors.
    factors: text_weight and strength. blend, pads: see `picture_prompt`. slots: (1, 77), which
    picture each slot holds; None: each picture has a prompt of its own.
    """

    def made(part: States, prompt: EncodedPrompt, text_weight: float) -> Made:
        found, pooled = states_prompt(readings, part, prompt, text_weight, blend, pads)
        return found if slots is None else by_slots(found, slots), pooled

    makers = [partial(made, part) for part in pictures]
    return text_entries(clip, readings.family, text, makers, factors)


def each_alone(
    readings: Readings, embeds: Tensor, factors: Sequence[tuple[float, float]]
) -> list[States]:
    """The states of image embeddings (B, J), together where all rows share their factors."""
    split = [embeds] if len(set(factors)) == 1 else embeds.split(1)
    return [readings.apply(part) for part in split]


def combined(
    mode: str,
    readings: Readings,
    embeds: Tensor,
    weights: Sequence[float] | None,
    keys: Sequence[int],
    factors: Sequence[tuple[float, float]],
) -> tuple[list[States], Tensor | None]:
    """What an option of `images` makes of image embeddings (B, J) of length 1: states and slots.

    weights: of the pictures where one prompt is made from all. keys: key frames.
    """
    if mode == SLOTS:
        states, shares = shared_states(readings, embeds, weights)
        return [states], shared_slots(shares)
    if mode in FROM_ALL:
        return [mean_states(readings, embeds, weights)], None
    return each_alone(readings, travel(embeds, keys) if mode == TRAVEL else embeds, factors), None
