"""CONDITIONING of a family from what is made of each encoded text, with its strength."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...projection import EncodedPrompt, Family, apply_strength, pooled_strength
from ..host.families.clip import encode_family_text
from ..inputs.checks import check_finite

Made = tuple[Tensor, Tensor]  # conditioning (B, 77 n, D) and pooled (B, P)


def text_entries(
    clip: Any,
    family: Family,
    text: str,
    makers: Sequence[Callable[[EncodedPrompt, float], Made]],
    factors: Sequence[tuple[float, float]],
) -> list:
    """One CONDITIONING; more than one entry only where hooks schedule the text encoders.

    makers: each gives rows of the result from the text and a text_weight. factors: text_weight and
    strength of each maker.
    """
    encoded = null = encode_family_text(clip, text, family)
    if encoded.has_words and any(strength != 1 for _, strength in factors):
        null = encode_family_text(clip, "", family)
    entries = []
    for (states, extras), prompt, (nulls, _), nothing in zip(
        encoded.entries, encoded.prompts, null.entries, null.prompts, strict=True
    ):
        conditioning, pooled = [], []
        for make, (text_weight, strength) in zip(makers, factors, strict=False):
            found, vector = make(prompt, text_weight)
            conditioning.append(apply_strength(found.to(states), nulls, strength))
            pooled.append(pooled_strength(vector, nothing.pooled, strength))
            check_finite([conditioning[-1], pooled[-1]], text_weight, strength)
        entries.append([torch.cat(conditioning), {**extras, "pooled_output": torch.cat(pooled)}])
    return entries
