"""The patch embedding of the host's preprocessing, straight from 64-pixel pictures.

Upsampling 64 -> 224 turns each 14-pixel patch into a linear function of 8 x 8 source pixels (the
patch's own 4 x 4 and two more on each side, the reach of bicubic interpolation). Training applies
that function to the kept patches only; the rounding to 8 bits is the only thing it leaves out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .preprocess import MEAN, STD
from .scenes import SIDE

WINDOW, STRIDE, PATCH = 8, 4, 14
INTERIOR = 6  # index of a patch whose window does not touch the border


def spread() -> Tensor:
    """(14 * 14, 8 * 8) weights of each upsampled pixel of a patch on its source window."""
    first = INTERIOR * STRIDE - (WINDOW - STRIDE) // 2
    impulses = torch.zeros(WINDOW * WINDOW, 1, SIDE, SIDE)
    window = torch.eye(WINDOW * WINDOW).reshape(-1, WINDOW, WINDOW)
    impulses[:, 0, first : first + WINDOW, first : first + WINDOW] = window
    large = F.interpolate(impulses, size=(224, 224), mode="bicubic", antialias=True)
    span = slice(INTERIOR * PATCH, (INTERIOR + 1) * PATCH)
    return large[:, 0, span, span].reshape(WINDOW * WINDOW, -1).T.contiguous()


def windows(pictures: Tensor) -> Tensor:
    """Source windows (N, 256, 3 * 64) of all patches of normalised pictures (N, 3, 64, 64)."""
    halo = (WINDOW - STRIDE) // 2
    padded = F.pad((pictures - MEAN) / STD, (halo,) * 4, mode="replicate")
    return F.unfold(padded, WINDOW, stride=STRIDE).transpose(1, 2)


def embed(kept: Tensor, weight: Tensor, spreading: Tensor) -> Tensor:
    """Patch embeddings (N, k, D) of windows (N, k, 192) under a (D, 3, 14, 14) convolution."""
    folded = weight.flatten(2) @ spreading  # (D, 3, 64)
    return kept @ folded.flatten(1).T
