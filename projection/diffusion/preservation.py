"""What training must not change: predictions that are to stay what they were.

    wanted = the prediction as it was, under some prompt at some noisy picture
    loss   = the error of the prediction as training stands, for the same prompt and noise

Texts: the picture's own prompt edited by texts, [SOS, words, e + a T, ...]. Without them a picture
that is trained on drowns out the text, for the same slots carry both.
Pictures: others, under their own prompts. Without them everything begins to look like what is
trained on. Prior preservation (Ruiz et al. 2023) asks the model to draw such pictures; here it
is only asked to say what it said, so that they need not be its own (ours).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..closed_form.centred import Centred
from ..data.batches import Batch, batch_of
from ..data.dataset import TrainingImages
from ..data.encoded_prompts import EncodedPrompts
from ..prompt.conditioning import assemble, edit

MIN_TEXT_WEIGHT = 0.4  # of the text weights that are drawn; the paper's own is 0.6


class PreservationBatch(Protocol):
    """Pairs of a picture and a noise level, and the prompt that each one has.

    said: what the model said at the start, (4, h, w) for each pair; None: it is to be asked.
    """

    batch: Batch
    said: tuple[Tensor, ...] | None

    def contexts(self, embeddings: Tensor, index: Tensor) -> Tensor:
        """Prompts (G, 77, D) of the pairs `index` (G,), for the pictures' embeddings (B, D)."""
        ...


@dataclass(frozen=True, eq=False)
class PromptPreservation:
    """K pairs of which each has its picture's prompt, edited by a text.

    batch: the pairs; which: (K,) indices into texts; weights: (K,) text weights; centred: of the
    projection, see `edit`.
    """

    batch: Batch
    texts: EncodedPrompts
    which: Tensor
    weights: Tensor
    said: tuple[Tensor, ...] | None = None
    centred: Centred | None = None

    def contexts(self, embeddings: Tensor, index: Tensor) -> Tensor:
        """See `PreservationBatch.contexts`."""
        rows = []
        for pair in index.tolist():
            text, owner = int(self.which[pair]), int(self.batch.owner[pair])
            states, eos = self.texts.states[text : text + 1], [self.texts.eos[text]]
            own = embeddings[owner : owner + 1]
            rows.append(edit(states, eos, own, float(self.weights[pair]), self.centred))
        return torch.cat(rows)


@dataclass(frozen=True, eq=False)
class PriorPreservation:
    """K pairs of which each has its picture's own prompt. sos: (D,), the SOS state."""

    batch: Batch
    sos: Tensor
    said: tuple[Tensor, ...] | None = None

    def contexts(self, embeddings: Tensor, index: Tensor) -> Tensor:
        """See `PreservationBatch.contexts`."""
        return assemble(self.sos, embeddings[self.batch.owner[index].to(embeddings.device)])


def prompt_preservation(
    source: TrainingImages,
    chosen: list[int],
    count: int,
    density: Tensor,
    texts: EncodedPrompts,
    strongest: float,
    generator: torch.Generator,
) -> PromptPreservation:
    """`count` pairs of the chosen pictures in turn, each with a random text and text weight, the
    latter up to `strongest`.

    Noise levels are drawn as `batch_of` does, from the same density.
    """
    # One level each of as many pictures as pairs: those beyond the last begin again.
    turns = [place % len(chosen) for place in range(count)]
    drawn = batch_of(source, [chosen[k] for k in turns], 1, density, generator)
    batch = Batch(source, chosen, torch.tensor(turns), drawn.times, drawn.noise, drawn.u)
    which = torch.randint(len(texts.eos), (count,), generator=generator)
    weights = MIN_TEXT_WEIGHT + (strongest - MIN_TEXT_WEIGHT) * torch.rand(
        count, generator=generator
    )
    return PromptPreservation(batch, texts, which, weights)


def prior_preservation(
    prior: TrainingImages, count: int, density: Tensor, sos: Tensor, generator: torch.Generator
) -> PriorPreservation:
    """`count` random ones of the pictures `prior`, at one noise level each."""
    chosen = torch.randint(len(prior), (count,), generator=generator).tolist()
    return PriorPreservation(batch_of(prior, chosen, 1, density, generator), sos)
