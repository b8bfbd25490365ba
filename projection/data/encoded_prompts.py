"""Encoded texts, for prompt preservation; see `preservation`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ImageToPromptError
from ..prompt.conditioning import CHUNK


@dataclass(frozen=True, eq=False)
class EncodedPrompts:
    """M encoded texts of one chunk each.

    states: (M, 77, D), last-layer states of the text encoder; eos: M positions of the first EOS,
    1..76. Raises ImageToPromptError if these do not fit together.
    """

    states: Tensor
    eos: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "eos", tuple(int(position) for position in self.eos))
        shape, count = tuple(self.states.shape), len(self.eos)
        fit = self.states.ndim == 3 and shape[:2] == (count, CHUNK) and count > 0
        if not fit or not all(0 < position < CHUNK for position in self.eos):
            raise ImageToPromptError(
                f"text states (M, {CHUNK}, D) and M positions of an EOS from 1 to {CHUNK - 1}",
                f"{shape} and {count} positions",
                "Encode captions of one chunk each.",
            )
        if not torch.isfinite(self.states).all():
            raise ImageToPromptError(
                "finite text states",
                "infinite or NaN numbers",
                "Check the text encoder for NaN.",
                "text states",
            )

    def detached_copy(self, device: torch.device) -> EncodedPrompts:
        """A float32 copy on this device that autograd can use."""
        return EncodedPrompts(self.states.detach().float().to(device, copy=True), self.eos)
