"""The host's picture preprocessing for CLIP, as arithmetic on (N, 3, H, W) tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)


def preprocess(pictures: Tensor, side: int = 224) -> Tensor:
    """[0, 1] pictures (N, 3, H, W) -> normalised (N, 3, side, side): short side, centre crop."""
    height, width = pictures.shape[-2:]
    if (height, width) != (side, side):
        scale = side / min(height, width)
        size = (round(scale * height), round(scale * width))
        pictures = F.interpolate(pictures, size=size, mode="bicubic", antialias=True)
        top, left = (size[0] - side) // 2, (size[1] - side) // 2
        pictures = pictures[:, :, top : top + side, left : left + side]
    levels = (255 * pictures).clamp(0, 255).round() / 255  # the host rounds to 8 bits too
    return (levels - MEAN) / STD
