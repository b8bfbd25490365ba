"""Where a low-rank change of cross-attention listens: the directions of the pictures' prompts.

    k = W_k c + B A c         A: rows a_i, orthogonal to the empty prompt;  only B is trained

The rows are the principal directions of the training pictures' prompt embeddings, after what they
share with the empty prompt (its SOS state and the mean of its EOS states) is taken away. So the
picture's slots trigger the change, while SOS, the empty prompt and the words of an editing text
hardly do: a picture becomes specific without the model becoming deaf to text. Ours.
"""

from __future__ import annotations

import torch
from torch import Tensor


def prompt_pca_directions(prompts: Tensor, null: Tensor, rank: int) -> Tensor:
    """A (R, D) float32, R <= rank; the first row has a mean square of 1 over the prompts.

    prompts: (N, D), prompt embeddings; null: (77, D), the empty prompt's states. R is smaller
    than `rank` where the prompts have fewer directions: one picture has one.
    """
    rows, states = prompts.detach().cpu().double(), null.detach().cpu().double()
    common = torch.linalg.qr(torch.stack([states[0], states[1:].mean(dim=0)]).T).Q  # (D, 2)
    own = rows - rows @ common @ common.T
    _, values, directions = torch.linalg.svd(own, full_matrices=False)
    kept = int((values > 1e-3 * values[0].clamp_min(1e-9)).sum())
    kept = max(1, min(rank, kept))
    # One scale for all: rows of their own would shout where other pictures vary more.
    size = (values[0] / len(rows) ** 0.5).clamp_min(1e-9)
    return (directions[:kept] / size).float()
