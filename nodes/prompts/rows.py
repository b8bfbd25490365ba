"""The entries of a CONDITIONING, from prompt embeddings, a text and their factors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...projection import (
    Centred,
    Projection,
    apply_strength,
    condition,
    has_words,
)
from ..host import api as host
from ..inputs.checks import check_finite


def entries(
    projection: Projection,
    clip: Any,
    text: str,
    embeddings: Tensor,
    factors: Sequence[tuple[float, float]],
    blend: str = "add",
) -> list:
    """CONDITIONING of embeddings (B, D) with a text, one row for each of them.

    factors: text_weight and strength, of all rows or of each.
    """
    encoded = host.encode_text(clip, text)
    null = _null_prompt(clip, encoded, [strength for _, strength in factors])
    made = []
    for (states, extras), (n, _) in zip(encoded.entries, null.entries, strict=True):
        split = [embeddings] if len(set(factors)) == 1 else embeddings.split(1)
        shared = (encoded.eos, blend, projection.centred)
        rows = [
            _rows(states, n, part, text_weight, strength, *shared)
            for part, (text_weight, strength) in zip(split, factors, strict=False)
        ]
        conditioning = torch.cat(rows)
        # As core has it for SD 1.x: the state at the first EOS. The U-Net does not read it.
        made.append([conditioning, {**extras, "pooled_output": conditioning[:, encoded.eos[0]]}])
    return made


def _null_prompt(
    clip: Any, encoded: host.EncodedText, strengths: Sequence[float]
) -> host.EncodedText:
    """The encoded empty prompt, without encoding twice where it is known or not needed."""
    if all(strength == 1 for strength in strengths) or not has_words(encoded.eos):
        return encoded
    return host.encode_text(clip, "")


def _rows(
    states: Tensor,
    null: Tensor,
    embeddings: Tensor,
    text_weight: float,
    strength: float,
    eos: list[int],
    blend: str,
    centred: Centred | None,
) -> Tensor:
    """Conditioning (B, 77 n, D). Raises ImageToPromptError for numbers that are not finite."""
    conditioning = condition(states, eos, embeddings.to(states), text_weight, blend, centred)
    conditioning = apply_strength(conditioning, null, strength)
    check_finite([conditioning], text_weight, strength)
    return conditioning
