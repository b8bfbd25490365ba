"""Least squares from text alone: the map from joint space to text states, fitted on captions.

    min over M, b of sum_i |M t_i + b - h_i|^2 + damping      t = W_t h / |W_t h|, h: EOS states
    u = M (v / |v| - g) + b         g: mean picture minus mean caption, the modality gap

No gradient and no U-Net: a corpus of captions gives M and b, some pictures of a domain give g.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .projector import Projection

DAMPING = 0.3  # of the mean variance of the captions' embeddings per direction


def fit_from_text(
    projection: Projection,
    states: Tensor,
    image_embeds: Tensor | None = None,
    text_projection: Tensor | None = None,
    damping: float = DAMPING,
) -> Projection:
    """A projection fitted to captions, and shifted to where the pictures lie.

    states: (M, D), last-layer EOS states of M captions, M > D is not needed. image_embeds:
    (N, J), joint CLIP space, of the domain's pictures; None: no shift. text_projection: W_t
    (J, D); None: what the projection's own pseudo-inverse knows of it.
    Raises ImageToPromptError for other widths, fewer than 2 captions, or an unfit projection.
    """
    raise NotImplementedError


def text_projection_of(projection: Projection) -> Tensor:
    """W_t (J, D) float32 up to the directions that the inverse has cut.

    Raises ImageToPromptError unless `projection` is a pseudo-inverse or a transpose.
    """
    raise NotImplementedError


def mean_gap(image_embeds: Tensor, text_embeds: Tensor) -> Tensor:
    """Mean of unit image embeddings (N, J) minus mean of unit text embeddings (M, J), (J,)."""
    unit = torch.nn.functional.normalize
    return unit(image_embeds.float(), dim=-1).mean(0) - unit(text_embeds.float(), dim=-1).mean(0)
