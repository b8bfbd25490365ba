"""The conditions of the U-Net's training: captions, their end states alone, nothing, and sizes.

- EOS alone: the empty prompt with the caption's end state in place of its own, in both encoders;
  all padding is the empty prompt's. Diffusion models whose text encoder is frozen largely obey
  such a prompt ("Padding Tone", arXiv 2501.06751). An end state is never put into all slots.
- Pooled alone: the empty prompt in both encoders with the caption's pooled state. Captions say the
  same in the cross-attention, so that without such a share nothing teaches the U-Net to read it.
- Nothing: zeros, as in SDXL's training, or the empty prompt, as most samplers give it.
- Each of L's states, G's states and pooled is made zero alone now and then, as SDXL's embedders
  are dropped one by one.
- Sizes are those of the picture but in one case of ten, where they are anything: they say nothing
  here.

Pictures never enter the condition.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..drawings.captions import FULL, TEMPLATES, all_captions
from ..drawings.world import SIDE, pairs
from . import models
from .encoders import Prompts, TextEncoders

NOTHING_SHARE, ZEROS_OF_NOTHING = 0.10, 0.5
END_SHARE, POOLED_SHARE = 0.35, 0.15
PARTIAL_SHARE, DROPPED_SHARE = 0.10, 0.05
PLAIN_SIZES_SHARE = 0.9
LEAST_SIZE, LARGEST_SIZE, LARGEST_CROP = 64, 2048, 256


@dataclass(frozen=True)
class Captions:
    """Conditions of all captions of all pairs.

    context (pairs, templates, 77, 160) in half precision, pooled (pairs, templates, 64), ends
    (pairs, templates) the slots of the first end tokens, empty the empty prompt.
    """

    context: Tensor
    pooled: Tensor
    ends: Tensor
    empty: Prompts

    @classmethod
    def encode(cls, encoders: TextEncoders) -> Captions:
        """Every template of every pair, once."""
        encoded = [encoders.encode(all_captions(pair)) for pair in pairs("all")]
        return cls(
            torch.stack([prompts.context.half() for prompts, _ in encoded]),
            torch.stack([prompts.pooled for prompts, _ in encoded]),
            torch.stack([ends for _, ends in encoded]),
            encoders.encode([""])[0],
        )


def draw_prompts(captions: Captions, rows: Tensor, generator: torch.Generator) -> Prompts:
    """Conditions (N) for pictures of the pairs `rows` (N,)."""
    u = torch.rand(len(rows), 7, generator=generator)
    full, partial = len(FULL), len(TEMPLATES) - len(FULL)
    template = torch.where(
        u[:, 0] < PARTIAL_SHARE, full + (u[:, 1] * partial).long(), (u[:, 1] * full).long()
    )
    context = captions.context[rows, template].float()
    pooled = captions.pooled[rows, template].clone()
    end = context[torch.arange(len(rows)), captions.ends[rows, template]]
    alone = u[:, 2] < END_SHARE
    context[alone] = end_alone(captions.empty, end[alone])
    pooled_alone = (u[:, 2] >= END_SHARE) & (u[:, 2] < END_SHARE + POOLED_SHARE)
    context[pooled_alone] = captions.empty.context
    nothing = u[:, 2] > 1 - NOTHING_SHARE
    context[nothing], pooled[nothing] = captions.empty.context, captions.empty.pooled
    blank = nothing & (u[:, 3] < ZEROS_OF_NOTHING)
    dropped = (u[:, 4:] < DROPPED_SHARE) | blank[:, None]
    context[dropped[:, 0], :, : models.L_WIDTH] = 0
    context[dropped[:, 1], :, models.L_WIDTH :] = 0
    pooled[dropped[:, 2]] = 0
    return Prompts(context, pooled)


def end_alone(empty: Prompts, end: Tensor) -> Tensor:
    """The empty prompt's context with other end states (N, 160) in slot 1, (N, 77, 160)."""
    context = empty.context.repeat(len(end), 1, 1)
    context[:, 1] = end
    return context


def plain_sizes(count: int) -> Tensor:
    """Sizes (N, 6) of this world's pictures: height, width, crop top, left, target's both."""
    return torch.tensor([SIDE, SIDE, 0, 0, SIDE, SIDE]).float().expand(count, -1)


def draw_sizes(count: int, generator: torch.Generator) -> Tensor:
    """Sizes (N, 6): in nine of ten cases those of the picture, otherwise any."""
    u = torch.rand(count, models.SIZES + 1, generator=generator)
    spread = LARGEST_SIZE / LEAST_SIZE
    sizes = LEAST_SIZE * spread ** u[:, : models.SIZES]
    sizes[:, 2:4] = LARGEST_CROP * (2 * u[:, 2:4] - 1).clamp(min=0)
    plain = u[:, -1:] < PLAIN_SIZES_SHARE
    return torch.where(plain, plain_sizes(count), sizes.round())
