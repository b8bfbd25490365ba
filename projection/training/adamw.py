"""AdamW (Loshchilov and Hutter 2019) on named tensors, with a state that can be written down.

torch.optim's numbers its tensors and imports a compiler; this is the same update.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

BETAS = (0.9, 0.99)
EPSILON = 1e-8


class AdamW:
    """First and second moments of named tensors; `step` counts the updates."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        self.step = 0
        self.first = {name: torch.zeros_like(value) for name, value in values.items()}
        self.second = {name: torch.zeros_like(value) for name, value in values.items()}

    @torch.no_grad()
    def update(
        self,
        values: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        rates: Mapping[str, float],
        decay: float = 0.0,
    ) -> None:
        """One update in place of what has a gradient; decay is relative to each tensor's rate."""
        self.step += 1
        for name, gradient in gradients.items():
            value, rate = values[name], rates[name]
            first = self.first[name].lerp_(gradient, 1 - BETAS[0])
            second = self.second[name].mul_(BETAS[1])
            second.addcmul_(gradient, gradient, value=1 - BETAS[1])
            size = (second / (1 - BETAS[1] ** self.step)).sqrt_().add_(EPSILON)
            value.mul_(1 - rate * decay)
            value.addcdiv_(first, size, value=-rate / (1 - BETAS[0] ** self.step))
