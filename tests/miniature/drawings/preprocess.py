"""The host's picture preprocessing for CLIP, as arithmetic on (N, 3, H, W) tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)


def preprocess(pictures: Tensor, side: int = 224) -> Tensor:
    """[0, 1] square pictures (N, 3, H, H) -> normalised (N, 3, side, side), via 8 bits."""
    if pictures.shape[-2] != pictures.shape[-1]:
        raise ValueError(f"expected square pictures; got {tuple(pictures.shape)}")
    large = F.interpolate(pictures, size=(side, side), mode="bicubic", antialias=True)
    return ((255 * large).clamp(0, 255).round() / 255 - MEAN) / STD
