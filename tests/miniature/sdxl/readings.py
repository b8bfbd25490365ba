"""From a picture to the states that SDXL reads, by the library's readings at the narrow widths.

They are fitted to captions alone: L's joint embeddings of captions, and the states that both
encoders give them at the first end token and, as their mean, at the pads behind it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from image_to_prompt.projection.families.family import EOS_ID, Family, Part
from image_to_prompt.projection.families.least_squares import fit_readings
from image_to_prompt.projection.families.readings import Readings

from ..drawings.captions import all_captions
from ..drawings.world import pairs
from .encoders import Prompts, TextEncoders
from .models import G_WIDTH, L_WIDTH, PAD

PARTS = (Part("l", L_WIDTH, EOS_ID, normed=False), Part("g", G_WIDTH, PAD, normed=False))
FAMILY = Family("SDXL, narrow", PARTS, pooled="g", layer=-2)
KINDS = FAMILY.reading_names
EVERY = 3  # so many pairs: their captions are 16 times the joint space's dimensions


def fit(encoders: TextEncoders) -> tuple[Readings, Readings]:
    """From L's joint space, and from G's, whose joint embedding of a caption is pooled.

    Of all captions of every third training pair, with the captions' mean as centre.
    """
    joint, states = encoded(encoders, pairs("train")[::EVERY])
    return fit_readings(FAMILY, joint, states), fit_readings(FAMILY, states["pooled"], states)


def means(readings: Readings, count: int) -> dict[str, Tensor]:
    """The offsets alone (count, D) by kind: what no picture says."""
    return {kind: r.offset.expand(count, -1) for kind, r in readings.readings.items()}


def encoded(encoders: TextEncoders, table: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Joint embeddings (N, 96) and states by kind of all captions of the pairs (M, 2)."""
    captions = [text for pair in table for text in all_captions(pair)]
    prompts, ends = encoders.encode(captions)
    return encoders.joint(captions), states_of(prompts, ends)


def states_of(prompts: Prompts, ends: Tensor) -> dict[str, Tensor]:
    """States (N, D) by kind: at the first end token, mean of the pads behind it, and pooled."""
    end = prompts.context[torch.arange(len(ends)), ends]
    behind = torch.arange(prompts.context.shape[1]) > ends[:, None]  # (N, 77)
    pad = (prompts.context * behind[:, :, None]).sum(dim=1) / behind.sum(dim=1, keepdim=True)
    (l_end, g_end), (l_pad, g_pad) = (s.split([L_WIDTH, G_WIDTH], dim=1) for s in (end, pad))
    return dict(zip(KINDS, (l_end, l_pad, g_end, g_pad, prompts.pooled), strict=True))


def agreement(readings: Readings, encoders: TextEncoders) -> dict[str, float]:
    """Mean centred cosine by kind of held-out captions' states to the readings of them."""
    joint, states = encoded(encoders, pairs("test"))
    offsets, found = means(readings, len(joint)), readings.apply(joint)
    return {
        kind: float(
            F.cosine_similarity(found[kind] - offsets[kind], states[kind] - offsets[kind]).mean()
        )
        for kind in KINDS
    }
