"""CONDITIONING of a prompt and a text, as the user's CLIP encodes it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...projection import (
    Projection,
    SlotPrompt,
    apply_strength,
    has_words,
    slot_conditioning,
)
from ...projection.prompt.conditioning import CHUNK
from ..host import api as host
from ..inputs.checks import check_finite


def prompt_of(
    projection: Projection, embeddings: Tensor, slots: Tensor | None = None
) -> SlotPrompt:
    """The prompt of prompt embeddings (K, D).

    slots: (B, 77), which of them each slot holds; None: B = K, each alone.
    """
    if slots is None:
        slots = torch.arange(len(embeddings))[:, None].expand(-1, CHUNK)
    gap = 0.0 if projection.centred is None else projection.centred.gap
    return SlotPrompt(embeddings, slots, projection.encoder, projection.common, gap)


def entries_of(
    prompt: SlotPrompt, clip: Any, text: str, text_weight: float, strength: float, blend: str
) -> list:
    """One CONDITIONING; more than one entry only where hooks schedule the text encoder."""
    encoded, empty = host.encode_text(clip, text), None
    chunks = len(encoded.eos)
    if strength != 1 and has_words(encoded.eos):
        empty = host.encode_text(clip, "")
    found = []
    for index, (states, extras) in enumerate(encoded.entries):
        null = states if empty is None else empty.entries[index][0]
        first = replace(prompt, slots=prompt.slots[:, : CHUNK * chunks])
        made = slot_conditioning(first, states, encoded.eos, text_weight, blend)
        made = torch.cat([made, _rest(prompt, chunks, states)], dim=1)
        made = apply_strength(made, null[:, :CHUNK], strength)
        check_finite([made], text_weight, strength)
        # As core has it for SD 1.x: the state at the first EOS. The U-Net does not read it.
        found.append([made, {**extras, "pooled_output": made[:, encoded.eos[0]]}])
    return found


def _rest(prompt: SlotPrompt, chunks: int, states: Tensor) -> Tensor:
    """What a saved prompt of more chunks than the text holds in those, (B, 77 m, D).

    It was saved with a longer text in it; no text joins it there.
    """
    rest = prompt.vectors.to(states)[prompt.slots[:, CHUNK * chunks :]]
    rest[:, ::CHUNK] = states[0, 0]
    return rest
