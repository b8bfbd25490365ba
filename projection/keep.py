"""What training must not change: what the model makes of the picture's prompt edited by texts.

    wanted = the prediction as it was for [SOS, words, e0 + a T, ...] at some noisy picture
    loss   = the error of the prediction as training stands, for the same text and noise

Without it a picture that is trained on drowns out the text: the same slots carry both. Prior
preservation (Ruiz et al. 2023) keeps a class of pictures so; this keeps the texts' say (ours).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .batches import Batch, batch_of
from .pictures import Pictures
from .prompt import edit
from .texts import Texts

# Text weights that are drawn from, around the paper's 0.6.
LIGHTEST, STRONGEST = 0.4, 1.3


@dataclass(frozen=True, eq=False)
class Kept:
    """K pairs of a picture and a noise level, and the text that edits each one's prompt.

    batch: the pairs; which: (K,) indices into texts; weights: (K,) text weights.
    """

    batch: Batch
    texts: Texts
    which: Tensor
    weights: Tensor

    def contexts(self, embeddings: Tensor, index: Tensor) -> Tensor:
        """Edited prompts (G, 77, D) of the pairs `index` (G,), for embeddings (B, D)."""
        rows = []
        for pair in index.tolist():
            text, owner = int(self.which[pair]), int(self.batch.owner[pair])
            states, eos = self.texts.states[text : text + 1], [self.texts.eos[text]]
            own = embeddings[owner : owner + 1]
            rows.append(edit(states, eos, own, float(self.weights[pair])))
        return torch.cat(rows)


def kept_of(
    source: Pictures,
    chosen: list[int],
    count: int,
    density: Tensor,
    texts: Texts,
    generator: torch.Generator,
) -> Kept:
    """`count` pairs of the chosen pictures in turn, each with a random text and text weight.

    Noise levels are drawn as `batch_of` does, from the same density.
    """
    # One level each of as many pictures as pairs: those beyond the last begin again.
    turns = [place % len(chosen) for place in range(count)]
    drawn = batch_of(source, [chosen[k] for k in turns], 1, density, generator)
    batch = Batch(source, chosen, torch.tensor(turns), drawn.times, drawn.noise, drawn.u)
    which = torch.randint(len(texts.eos), (count,), generator=generator)
    weights = LIGHTEST + (STRONGEST - LIGHTEST) * torch.rand(count, generator=generator)
    return Kept(batch, texts, which, weights)
