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

    states: (M, 77, D), the states that the U-Net reads: the text encoder's last-layer ones for
    SD 1.x, those of several encoders side by side for SDXL. eos: M positions of the first EOS,
    1..76. pooled: (M, P), pooled text, where the U-Net reads it. Raises ImageToPromptError if
    these do not fit together.
    """

    states: Tensor
    eos: tuple[int, ...]
    pooled: Tensor | None = None

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
        if self.pooled is not None and (self.pooled.ndim != 2 or len(self.pooled) != count):
            raise ImageToPromptError(
                f"pooled text ({count}, P)",
                f"{tuple(self.pooled.shape)}",
                "Encode captions of one chunk each.",
            )
        if not all(torch.isfinite(t).all() for t in (self.states, self.pooled) if t is not None):
            raise ImageToPromptError(
                "finite text states",
                "infinite or NaN numbers",
                "Check the text encoder for NaN.",
                "text states",
            )

    def detached_copy(self, device: torch.device) -> EncodedPrompts:
        """A float32 copy on this device that autograd can use."""
        states = self.states.detach().float().to(device, copy=True)
        if self.pooled is None:
            return EncodedPrompts(states, self.eos)
        return EncodedPrompts(states, self.eos, self.pooled.detach().float().to(device, copy=True))
