"""What SDXL's U-Net reads of a caption: penultimate states of both text encoders, and pooled.

    context = [L, 96 | G, 64]    before the last layer of each encoder, not normalised
    pooled  = W_t LN(last state of G at the first end token)

L pads with end tokens, G with another token, so their slots behind the caption differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel, CLIPTextModelWithProjection

from ..drawings import models as drawings
from ..drawings.tokenizer import Tokenizer, end_positions
from ..drawings.train_text import end_states
from . import models

CHUNK = 100


@dataclass(frozen=True)
class Prompts:
    """Conditions of N prompts: context (N, 77, 160), pooled (N, 64)."""

    context: Tensor
    pooled: Tensor

    def __len__(self) -> int:
        return len(self.context)

    def __getitem__(self, index: Tensor | slice) -> Prompts:
        return Prompts(self.context[index], self.pooled[index])

    def expand(self, count: int) -> Prompts:
        """One prompt `count` times."""
        return Prompts(self.context.expand(count, -1, -1), self.pooled.expand(count, -1))

    @staticmethod
    def cat(parts: list[Prompts]) -> Prompts:
        """The prompts of all parts in order."""
        return Prompts(
            torch.cat([part.context for part in parts]), torch.cat([part.pooled for part in parts])
        )


@dataclass(frozen=True)
class TextEncoders:
    """The two text encoders, frozen."""

    l: CLIPModel  # noqa: E741 (SDXL's own name)
    g: CLIPTextModelWithProjection

    @classmethod
    def load(cls, folder: Path = models.WEIGHTS, drawn: Path = drawings.WEIGHTS) -> TextEncoders:
        """The drawings' CLIP from `drawn`, the open CLIP from `folder`."""
        return cls(drawings.load("clip", drawn), models.load("open_clip", folder))

    @torch.no_grad()
    def encode(self, captions: list[str]) -> tuple[Prompts, Tensor]:
        """Conditions of captions, and the slot (N,) of each one's first end token."""
        ids = Tokenizer()(captions)
        parts = [self._encode(part) for part in ids.split(CHUNK)]
        return Prompts.cat(parts), end_positions(ids)

    def _encode(self, ids: Tensor) -> Prompts:
        l_states, _ = two_layers(self.l.text_model, drawings.compact(ids))
        g_ids = models.compact(models.padded_with_zero(ids))
        g_states, last = two_layers(self.g.text_model, g_ids)
        ends = last[torch.arange(len(ids)), end_positions(ids)]
        return Prompts(torch.cat([l_states, g_states], dim=-1), self.g.text_projection(ends))

    @torch.no_grad()
    def joint(self, captions: list[str]) -> Tensor:
        """L's unit joint embeddings (N, 96) of captions: what a picture is mapped from."""
        ids = Tokenizer()(captions)
        states = torch.cat([end_states(self.l, part) for part in ids.split(CHUNK)])
        return F.normalize(self.l.text_projection(states), dim=-1)


def two_layers(text_model: torch.nn.Module, rows: Tensor) -> tuple[Tensor, Tensor]:
    """States (N, length, width) before the last layer, as they are, and behind it, normalised."""
    found = text_model(input_ids=rows, output_hidden_states=True)
    return found.hidden_states[-2], found.last_hidden_state


def zeros() -> Prompts:
    """The condition of SDXL's training without a prompt, one prompt of zeros."""
    shape = (1, drawings.LENGTH, models.CONTEXT_WIDTH)
    return Prompts(torch.zeros(shape), torch.zeros(1, models.G_WIDTH))
