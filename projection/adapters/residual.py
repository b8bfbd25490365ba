"""A trained correction of the prompt embedding's direction (ours).

    n = u / |u|                          the closed form's direction, see `projector`
    u' = u + |u| (B A n + s)             A: down (r, D), B: up (D, r), s: shift (D,)
    e = norm * u' / |u'|

The correction is added to u itself, so that a zero one gives the closed form bit for bit; the
result keeps the length on which prompts lie.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ImageToPromptError

DAMAGED = "Fit or refine the projection anew."


@dataclass(frozen=True, eq=False)
class Residual:
    """A low-rank map and a shift of prompt embeddings of length 1. Immutable.

    down: (r, D), up: (D, r), shift: (D,); float32, space of the text encoder's last-layer
    states, in units of the prompt's length. Raises ImageToPromptError if they do not fit.
    """

    down: Tensor
    up: Tensor
    shift: Tensor

    def __post_init__(self) -> None:
        check_numbers("a residual", self.down, self.up, self.shift)
        width = self.shift.shape[0] if self.shift.ndim == 1 else 0
        rank = self.down.shape[0] if self.down.ndim == 2 else 0
        if self.down.shape != (rank, width) or self.up.shape != (width, rank) or not width:
            shapes = [tuple(t.shape) for t in (self.down, self.up, self.shift)]
            expected = "a residual of shapes (r, D), (D, r) and (D,)"
            raise ImageToPromptError(expected, f"{shapes}", DAMAGED, "projection file")

    @property
    def width(self) -> int:
        """D, the width of the text encoder."""
        return self.shift.shape[0]

    def apply(self, u: Tensor) -> Tensor:
        """u' (B, D) from projected pictures u (B, D) of any length > 0."""
        down, up, shift = (t.to(u) for t in (self.down, self.up, self.shift))
        length = u.norm(dim=-1, keepdim=True)
        return u + length * ((u / length) @ down.T @ up.T + shift)


def check_numbers(what: str, *tensors: Tensor) -> None:
    """Raise ImageToPromptError unless all are finite and float32 or float16."""
    for tensor in tensors:
        fit = tensor.dtype in (torch.float32, torch.float16) and torch.isfinite(tensor).all()
        if not fit:
            raise ImageToPromptError(
                f"{what} of finite float32 or float16 numbers",
                f"{tuple(tensor.shape)} {tensor.dtype}",
                DAMAGED,
                "projection file",
            )
