"""What every adapter checks of its tensors."""

from __future__ import annotations

import torch
from torch import Tensor

DAMAGED = "Fit or refine the projection anew."
NUMBERS = "finite float16 or float32 values"


def unfit(*tensors: Tensor) -> str:
    """Shape and dtype of the first tensor that is not of NUMBERS; empty if all are."""
    for tensor in tensors:
        fit = tensor.dtype in (torch.float32, torch.float16) and torch.isfinite(tensor).all()
        if not fit:
            return f"{tuple(tensor.shape)} {tensor.dtype}"
    return ""
