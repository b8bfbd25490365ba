"""Where a picture's states stand in SDXL's 77 slots, and what a text adds to them.

Start state and words stay as the encoders gave them; the state at the first end token and those of
the pads behind it are replaced in both encoders alike. With a text: e + a (T - offset), where T is
the text's own state in that slot.
"""

from __future__ import annotations

import torch
from torch import Tensor

from image_to_prompt.projection.families.readings import Readings

from .encoders import Prompts
from .readings import KINDS

RULES = ("P1", "P2", "P3")


def placed(states: dict[str, Tensor], text: Prompts, ends: Tensor, rule: str = "P2") -> Prompts:
    """Prompts (N) from states (N, D) by kind and a text (1 or N) with its end slots.

    P1: the end state in all slots; P2: the end state, then the pad state; P3: the end state, then
    the text's own pads.
    """
    if rule not in RULES:
        raise ValueError(f"expected a rule of {RULES}; got {rule!r}")
    count = len(states["pooled"])
    text, ends = text.expand(count) if len(text) == 1 else text, ends.expand(count)
    end = torch.cat([states["l.eos"], states["g.eos"]], dim=-1)[:, None]
    pad = torch.cat([states["l.pad"], states["g.pad"]], dim=-1)[:, None]
    after = {"P1": end, "P2": pad, "P3": text.context}[rule]
    slots = torch.arange(text.context.shape[1])
    context = torch.where((slots > ends[:, None])[:, :, None], after, text.context)
    context = torch.where((slots == ends[:, None])[:, :, None], end, context)
    return Prompts(context, states["pooled"])


def edited(
    states: dict[str, Tensor], readings: Readings, text: Prompts, ends: Tensor, weight: float
) -> Prompts:
    """Prompts (N) from pictures' states and N texts: e + a (T - offset), pads each by its own T."""
    offsets = {kind: readings.readings[kind].offset for kind in KINDS}
    end, pad, end_offset, pad_offset = (
        torch.cat([part[f"l.{place}"], part[f"g.{place}"]], dim=-1)
        for part in (states, offsets)
        for place in ("eos", "pad")
    )
    pads = pad[:, None] + weight * (text.context - pad_offset)
    ending = end[:, None] + weight * (text.context - end_offset)
    slots = torch.arange(text.context.shape[1])
    context = torch.where((slots > ends[:, None])[:, :, None], pads, text.context)
    context = torch.where((slots == ends[:, None])[:, :, None], ending, context)
    return Prompts(context, states["pooled"] + weight * (text.pooled - offsets["pooled"]))
