"""Prompts of a training run: what the U-Net is conditioned on, and how images become it.

    SD 1.x          [SOS, e, ..., e]; with a text [SOS, words, e + a T, ...], see `conditioning`
    SD 2.x, SDXL    one state per kind of slot and text encoder, pooled; see `families.slots`

Which of the two a projection needs is known from the projection. The loss asks a form for prompts,
and does not depend on the model family.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..data.encoded_prompts import EncodedPrompts


@dataclass(frozen=True, eq=False)
class Prompts:
    """B prompts. states: (B, 77, D), text states as the U-Net reads them.

    pooled: (B, P), or None where the U-Net reads none.
    """

    states: Tensor
    pooled: Tensor | None = None

    def where(self, conditioned: Tensor, other: Prompts) -> Prompts:
        """These prompts where conditioned (B,) is true, else the other (1, ...)."""
        states = torch.where(conditioned[:, None, None], self.states, other.states)
        if self.pooled is None or other.pooled is None:
            return Prompts(states)
        return Prompts(states, torch.where(conditioned[:, None], self.pooled, other.pooled))

    def detached_copy(self, device: torch.device) -> Prompts:
        """Float32 copies on this device that autograd can use."""
        states = self.states.detach().float().to(device, copy=True)
        if self.pooled is None:
            return Prompts(states)
        return Prompts(states, self.pooled.detach().float().to(device, copy=True))

    def named(self) -> dict[str, Tensor]:
        """`pooled` as an argument of `Denoiser.predict`, only where the U-Net reads one."""
        return {} if self.pooled is None else {"pooled": self.pooled}


def joined(prompts: Sequence[Prompts]) -> Prompts:
    """All of these prompts along B, in their order; all of them with pooled, or none."""
    vectors = [each.pooled for each in prompts if each.pooled is not None]
    return Prompts(
        torch.cat([each.states for each in prompts]), torch.cat(vectors) if vectors else None
    )


class EmbedsImages(Protocol):
    """What a projection does, whatever its kind; `Projection` has it."""

    def apply(self, image_embeds: Tensor) -> Tensor:
        """Prompt embeddings (B, D) of image embeddings (B, J), joint CLIP space."""
        ...

    def corrected(self, image_embeds: Tensor) -> Tensor:
        """Image embeddings (B, J) for readings, with what training corrected in them."""
        ...


class PromptForm(Protocol):
    """How images become prompts. An embedding (E,) is what a projection makes of an image."""

    @property
    def null(self) -> Prompts:
        """The encoded empty prompt (1, ...)."""
        ...

    def embeddings(self, projection: EmbedsImages, image_embeds: Tensor) -> Tensor:
        """Embeddings (B, E) of image embeddings (B, J), joint CLIP space; differentiable."""
        ...

    def own_states(self, projection: EmbedsImages, image_embeds: Tensor) -> Tensor:
        """States (B, D) of the images' slots, without the part that all prompts share."""
        ...

    @property
    def shared_states(self) -> Tensor:
        """States (L, D) that all prompts share: SOS, then those of slots, see `pca_init`."""
        ...

    def of_images(self, embeddings: Tensor) -> Prompts:
        """The images' own prompts, from embeddings (B, E)."""
        ...

    def edited(
        self, embeddings: Tensor, texts: EncodedPrompts, text: int, text_weight: float
    ) -> Prompts:
        """Prompts of embeddings (B, E), edited by the text of this index."""
        ...
