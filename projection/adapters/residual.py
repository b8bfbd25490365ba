"""A trained correction of a direction: the prompt embedding's, or the image embedding's (ours).

    n = u / |u|                          the closed form's direction, see `projector`
    u' = u + |u| (B A n + s)             A: down (r, D), B: up (D, r), s: shift (D,)
    e = norm * u' / |u'|

The correction is added to u itself, so that a zero one gives the closed form bit for bit; the
result keeps the length on which prompts lie. With the readings of SD 2.x and SDXL u is the image
embedding, joint CLIP space, and D is J; see `Projection.corrected`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from ..config.training_config import TrainingConfig
from ..errors import ImageToPromptError
from .checks import DAMAGED, NUMBERS, unfit


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
        if got := unfit(self.down, self.up, self.shift):
            raise ImageToPromptError(f"a residual of {NUMBERS}", got, DAMAGED, "projection file")
        width = self.shift.shape[0] if self.shift.ndim == 1 else 0
        rank = self.down.shape[0] if self.down.ndim == 2 else 0
        if self.down.shape != (rank, width) or self.up.shape != (width, rank) or not width:
            shapes = [tuple(t.shape) for t in (self.down, self.up, self.shift)]
            expected = "a residual of shapes (r, D), (D, r) and (D,)"
            raise ImageToPromptError(expected, f"{shapes}", DAMAGED, "projection file")

    @classmethod
    def initial(cls, width: int, rank: int, generator: torch.Generator) -> Residual:
        """The residual before training: up and shift are 0, so that it adds nothing."""
        down = torch.randn(rank, width, generator=generator)
        return cls(down, torch.zeros(width, rank), torch.zeros(width))

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Residual:
        """The inverse of `tensors`. Raises KeyError where one is missing."""
        return cls(tensors["down"], tensors["up"], tensors["shift"])

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by the name of their field."""
        return {"down": self.down, "up": self.up, "shift": self.shift}

    def lr_scales(self, config: TrainingConfig) -> dict[str, float]:
        """Learning rates of its tensors, in units of the run's.

        Those of up and shift fall with the root of D, so that a step turns the embedding by as
        much at every width.
        """
        scale = config.residual.lr_scale if config.residual else 0.0
        return {"down": scale, "up": scale / sqrt(self.width), "shift": scale / sqrt(self.width)}

    def stored(self) -> Residual:
        """As a file has it: float32, on the CPU, detached, in tensors of its own."""
        own = (t.detach().to("cpu", torch.float32, copy=True) for t in self.tensors().values())
        return Residual(*own)

    @property
    def width(self) -> int:
        """D, the width of the text encoder."""
        return self.shift.shape[0]

    def apply(self, u: Tensor) -> Tensor:
        """u' (B, D) from projected images u (B, D) of any length > 0."""
        down, up, shift = (t.to(u) for t in (self.down, self.up, self.shift))
        length = u.norm(dim=-1, keepdim=True)
        return u + length * ((u / length) @ down.T @ up.T + shift)
