"""Prompts of SD 2.x and SDXL in a training run, from the readings of a projection."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.encoded_prompts import EncodedPrompts
from ..families.readings import Readings
from ..families.slots import EncodedPrompt, picture_prompt
from .prompt_form import EmbedsImages, Prompts

_EMPTY_EOS = 1  # of the empty prompt: the position behind SOS


@dataclass(frozen=True, eq=False)
class ReadingPrompts:
    """Prompts of a model family: an embedding is the image embedding (J,), joint CLIP space.

    readings: of a projection for that family. null: of the empty prompt; with pooled only where
    the U-Net reads it.
    """

    readings: Readings
    null: Prompts

    def embeddings(self, projection: EmbedsImages, image_embeds: Tensor) -> Tensor:
        """See `PromptForm.embeddings`."""
        return projection.corrected(image_embeds.float())

    def own_states(self, projection: EmbedsImages, image_embeds: Tensor) -> Tensor:
        """See `PromptForm.own_states`: deviations from the mean states of captions at EOS."""
        embeddings = self.embeddings(projection, image_embeds)
        found, readings = self.readings.apply(embeddings), self.readings.readings
        names = [f"{key}.eos" for key in self.readings.family.keys]
        return torch.cat([found[n] - readings[n].offset.to(found[n]) for n in names], dim=-1)

    @property
    def shared_states(self) -> Tensor:
        """See `PromptForm.shared_states`: SOS, and the mean states of captions at EOS."""
        readings, keys = self.readings.readings, self.readings.family.keys
        mean = torch.cat([readings[f"{key}.eos"].offset for key in keys])
        sos = self.null.states[0, 0]
        return torch.stack([sos, mean.to(sos)])

    def of_images(self, embeddings: Tensor) -> Prompts:
        """See `PromptForm.of_images`."""
        empty = self._encoded(self.null.states, _EMPTY_EOS, self.null.pooled)
        return self._prompts(embeddings, empty, 0.0)

    def edited(
        self, embeddings: Tensor, texts: EncodedPrompts, text: int, text_weight: float
    ) -> Prompts:
        """See `PromptForm.edited`."""
        own = slice(text, text + 1)
        pooled = None if texts.pooled is None else texts.pooled[own]
        encoded = self._encoded(texts.states[own], texts.eos[text], pooled)
        return self._prompts(embeddings, encoded, text_weight)

    def _encoded(self, states: Tensor, eos: int, pooled: Tensor | None) -> EncodedPrompt:
        """One text (1, 77, D) by the family's parts, whose tokenizers place EOS alike."""
        family = self.readings.family
        widths = [part.width for part in family.parts]
        each = dict(zip(family.keys, states.split(widths, dim=-1), strict=True))
        if pooled is None:  # not read by the U-Net
            pooled = states.new_zeros(1, self.readings.pooled_width)
        return EncodedPrompt(each, {key: [eos] for key in family.keys}, pooled)

    def _prompts(self, embeddings: Tensor, text: EncodedPrompt, text_weight: float) -> Prompts:
        states, pooled = picture_prompt(self.readings, embeddings, text, text_weight)
        return Prompts(states, None if self.null.pooled is None else pooled)
