"""Encoded texts, for training that must not drown them out; see `keep`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ImageToPromptError
from ..prompt.conditioning import CHUNK


@dataclass(frozen=True, eq=False)
class EncodedPrompts:
    """Texts whose say is kept: any captions, better some hundred than one.

    states: (M, 77, D), last-layer text states; eos: M positions of the first EOS, 1..76.
    Raises ImageToPromptError if these do not fit together.
    """

    states: Tensor
    eos: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "eos", tuple(int(place) for place in self.eos))
        shape, count = tuple(self.states.shape), len(self.eos)
        fit = self.states.ndim == 3 and shape[:2] == (count, CHUNK) and count > 0
        if not fit or not all(0 < place < CHUNK for place in self.eos):
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

    def owned(self, device: torch.device) -> EncodedPrompts:
        """A float32 copy that autograd can use, on this device."""
        return EncodedPrompts(self.states.detach().float().to(device, copy=True), self.eos)
