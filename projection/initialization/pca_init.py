"""LoRA's A for cross-attention from the principal directions of the images' prompt embeddings.

    k = W_k c + B A c         A: rows a_i, orthogonal to the empty prompt;  only B is trained

Initialising A by the SVD of the layer's inputs is EVA (Paischer et al. 2024). Two things are ours:
the directions that the inputs share with the empty prompt (its SOS state and the mean of its EOS
states) are removed first, so that the image's slots activate the delta while SOS, the empty
prompt and the words of an editing text hardly do; and all rows share one scale.
"""

from __future__ import annotations

import torch
from torch import Tensor


def prompt_pca_directions(prompts: Tensor, null: Tensor, rank: int) -> Tensor:
    """A (R, D) float32, R <= rank; the first row has a mean square of 1 over the prompts.

    prompts: (N, D), prompt embeddings; null: (L, D), the empty prompt's states or others that
    all prompts share, the SOS state first. R is smaller than `rank` where the prompts have fewer
    directions: a single image has one.
    """
    rows, states = prompts.detach().cpu().double(), null.detach().cpu().double()
    common = torch.linalg.qr(torch.stack([states[0], states[1:].mean(dim=0)]).T).Q  # (D, 2)
    own = rows - rows @ common @ common.T
    _, values, directions = torch.linalg.svd(own, full_matrices=False)
    found = int((values > 1e-3 * values[0].clamp_min(1e-9)).sum())
    found = max(1, min(rank, found))
    # One scale for all: scaled apart, weak directions would have unit gain as well, and what
    # varies between other images is not what varies between these.
    size = (values[0] / len(rows) ** 0.5).clamp_min(1e-9)
    return (directions[:found] / size).float()
