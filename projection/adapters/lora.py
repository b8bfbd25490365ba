"""The weight delta of one linear map: low-rank (LoRA) or full.

    y = W x + B A x         A: down (r, C), B: up (O, r);  or  y = W x + D x

The map itself is never touched: whoever runs the U-Net adds the delta's output to the map's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..config.training_config import LoRAConfig
from ..errors import ImageToPromptError
from .checks import DAMAGED, NUMBERS, unfit


@dataclass(frozen=True, eq=False)
class LoRADelta:
    """The weight delta B A of one linear map (LoRA, Hu et al. 2021).

    down: (r, C), up: (O, r); float16 or float32. Raises ImageToPromptError if they do not fit.
    """

    down: Tensor
    up: Tensor

    def __post_init__(self) -> None:
        if got := unfit(self.down, self.up):
            raise ImageToPromptError(
                f"a weight delta of {NUMBERS}", got, DAMAGED, "projection file"
            )
        fit = self.down.ndim == self.up.ndim == 2
        if not fit or self.up.shape[1] != len(self.down) or not len(self.down):
            got = f"{tuple(self.down.shape)} and {tuple(self.up.shape)}"
            raise ImageToPromptError(
                "a low-rank weight delta of (r, C) and (O, r)", got, DAMAGED, "projection file"
            )

    @classmethod
    def initial(cls, down: Tensor, outputs: int) -> LoRADelta:
        """The delta before training, with B = 0. down: A (r, C); outputs: O."""
        return cls(down, torch.zeros(outputs, len(down)))

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by the name of their field."""
        return {"down": self.down, "up": self.up}

    def lr_scales(self, lora: LoRAConfig) -> dict[str, float]:
        """Learning rates of A and B, in units of the run's."""
        return {"down": lora.down_lr_scale, "up": lora.lr_scale}

    def stored(self) -> LoRADelta:
        """As a file has it: float16, on the CPU, detached."""
        return LoRADelta(*(t.detach().to("cpu", torch.float16) for t in self.tensors().values()))

    def rescaled(self, factor: float) -> LoRADelta:
        """The same B A from factor * A and B / factor, float32; exact for powers of two."""
        return LoRADelta(self.down.float() * factor, self.up.float() / factor)

    @property
    def is_zero(self) -> bool:
        """Whether B is 0, so that the delta changes nothing."""
        return not self.up.any()

    @property
    def shape(self) -> tuple[int, int]:
        """(O, C), as `torch.nn.Linear.weight`."""
        return len(self.up), self.down.shape[1]

    def weight(self) -> Tensor:
        """The delta of the weight (O, C), float32; differentiable."""
        return self.up.float() @ self.down.float()

    def __call__(self, context: Tensor) -> Tensor:
        """The addition to the map's output (B, L, O) for an input (B, L, C); differentiable."""
        return context @ self.down.to(context).T @ self.up.to(context).T

    def added_to(self, output: Tensor, context: Tensor) -> Tensor:
        """output (..., O) plus the delta's own, in one pass over it; all of one dtype."""
        hidden = context.flatten(0, -2) @ self.down.to(context).T
        return torch.addmm(output.flatten(0, -2), hidden, self.up.to(context).T).view_as(output)


@dataclass(frozen=True, eq=False)
class FullDelta:
    """The weight delta D of one linear map. matrix: (O, C); float16 or float32."""

    matrix: Tensor

    def __post_init__(self) -> None:
        if got := unfit(self.matrix):
            raise ImageToPromptError(
                f"a weight delta of {NUMBERS}", got, DAMAGED, "projection file"
            )
        if self.matrix.ndim != 2:
            got = f"{tuple(self.matrix.shape)}"
            raise ImageToPromptError("a weight delta of (O, C)", got, DAMAGED, "projection file")

    @classmethod
    def initial(cls, shape: tuple[int, int]) -> FullDelta:
        """The delta before training, D = 0 of shape (O, C)."""
        return cls(torch.zeros(shape))

    def tensors(self) -> dict[str, Tensor]:
        """Its tensor by the name of its field."""
        return {"matrix": self.matrix}

    def lr_scales(self, lora: LoRAConfig) -> dict[str, float]:
        """The learning rate of D, in units of the run's: less for more inputs, as they add up."""
        return {"matrix": lora.lr_scale / self.matrix.shape[-1]}

    def stored(self) -> FullDelta:
        """As a file has it: float16, on the CPU, detached."""
        return FullDelta(self.matrix.detach().to("cpu", torch.float16))

    @property
    def is_zero(self) -> bool:
        """Whether D is 0, so that the delta changes nothing."""
        return not self.matrix.any()

    @property
    def shape(self) -> tuple[int, int]:
        """(O, C), as `torch.nn.Linear.weight`."""
        outputs, inputs = self.matrix.shape
        return outputs, inputs

    def weight(self) -> Tensor:
        """The delta of the weight (O, C), float32; differentiable."""
        return self.matrix.float()

    def __call__(self, context: Tensor) -> Tensor:
        """The addition to the map's output (B, L, O) for an input (B, L, C); differentiable."""
        return context @ self.matrix.to(context).T

    def added_to(self, output: Tensor, context: Tensor) -> Tensor:
        """output (..., O) plus the delta's own, in one pass over it; all of one dtype."""
        inputs = context.flatten(0, -2)
        return torch.addmm(output.flatten(0, -2), inputs, self.matrix.to(context).T).view_as(output)


Delta = LoRADelta | FullDelta
