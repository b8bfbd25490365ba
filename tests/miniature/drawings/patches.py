"""CLIP's patch embedding of the upsampled picture, straight from 96-pixel pictures.

Upsampling 96 -> 224 turns each 14-pixel patch into a linear function of 10 x 10 source pixels: the
patch's own 6 x 6 and two more on each side, the reach of bicubic interpolation. Training applies
that function to the kept patches only; it leaves out the rounding to 8 bits alone.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .preprocess import MEAN, STD
from .world import SIDE

WINDOW, STRIDE, PATCH = 10, 6, 14
INTERIOR = 6  # index of a patch whose window does not touch the border


@cache
def spread() -> Tensor:
    """(14 * 14, 10 * 10) weights of each upsampled pixel of a patch on its source window."""
    first = INTERIOR * STRIDE - (WINDOW - STRIDE) // 2
    impulses = torch.zeros(WINDOW * WINDOW, 1, SIDE, SIDE)
    window = torch.eye(WINDOW * WINDOW).reshape(-1, WINDOW, WINDOW)
    impulses[:, 0, first : first + WINDOW, first : first + WINDOW] = window
    large = F.interpolate(impulses, size=(224, 224), mode="bicubic", antialias=True)
    span = slice(INTERIOR * PATCH, (INTERIOR + 1) * PATCH)
    return large[:, 0, span, span].reshape(WINDOW * WINDOW, -1).T.contiguous()


def windows(pictures: Tensor) -> Tensor:
    """Source windows (N, 256, 3 * 100), normalised, of all patches of [0, 1] pictures."""
    halo = (WINDOW - STRIDE) // 2
    padded = F.pad((pictures - MEAN) / STD, (halo,) * 4, mode="replicate")
    return F.unfold(padded, WINDOW, stride=STRIDE).transpose(1, 2)


def embed(kept: Tensor, weight: Tensor) -> Tensor:
    """Patch embeddings (N, k, D) of windows (N, k, 300) under a (D, 3, 14, 14) convolution."""
    folded = weight.flatten(2) @ spread()  # (D, 3, 100)
    return kept @ folded.flatten(1).T
