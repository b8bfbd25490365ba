"""Prompts of SD 1.x in a training run: the image's embedding in every slot from EOS on."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..data.encoded_prompts import EncodedPrompts
from ..prompt.conditioning import CommonPart, assemble, edit
from .prompt_form import EmbedsImages, Prompts


@dataclass(frozen=True, eq=False)
class ClosedFormPrompts:
    """Prompts of SD 1.x: e (D,), last-layer text state, in every slot from the first EOS on.

    null: of the empty prompt, without pooled. centred: of the projection, see `edit`.
    """

    null: Prompts
    centred: CommonPart | None = None

    def embeddings(self, projection: EmbedsImages, image_embeds: Tensor) -> Tensor:
        """See `PromptForm.embeddings`."""
        return projection.apply(image_embeds)

    def own_states(self, projection: EmbedsImages, image_embeds: Tensor) -> Tensor:
        """See `PromptForm.own_states`; the closed form of SD 1.x has no shared part."""
        return projection.apply(image_embeds)

    @property
    def shared_states(self) -> Tensor:
        """See `PromptForm.shared_states`: the empty prompt's."""
        return self.null.states[0]

    def of_images(self, embeddings: Tensor) -> Prompts:
        """See `PromptForm.of_images`."""
        return Prompts(assemble(self.null.states[0, 0], embeddings))

    def edited(
        self, embeddings: Tensor, texts: EncodedPrompts, text: int, text_weight: float
    ) -> Prompts:
        """See `PromptForm.edited`."""
        states, eos = texts.states[text : text + 1], [texts.eos[text]]
        return Prompts(edit(states, eos, embeddings, text_weight, self.centred))
