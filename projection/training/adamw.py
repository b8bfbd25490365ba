"""AdamW (Loshchilov and Hutter 2019) on named tensors, with a state that can be saved.

torch.optim numbers its tensors instead of naming them, and imports a compiler; the update is the
same.
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
        grads: Mapping[str, Tensor],
        rates: Mapping[str, float],
        weight_decay: float = 0.0,
    ) -> None:
        """One update, in place, of the values that have a gradient: of all of them or of none.

        weight_decay: relative to each tensor's learning rate. Where memory runs out, values,
        moments and `step` are those of before.
        """
        step = self.step + 1
        first, second, updated = {}, {}, {}
        for name, grad in grads.items():
            rate = rates[name]
            first[name] = self.first[name].lerp(grad, 1 - BETAS[0])
            second[name] = (self.second[name] * BETAS[1]).addcmul_(grad, grad, value=1 - BETAS[1])
            size = (second[name] / (1 - BETAS[1] ** step)).sqrt_().add_(EPSILON)
            move = -rate / (1 - BETAS[0] ** step)
            shrink = 1 - rate * weight_decay
            value = values[name] if shrink == 1 else values[name] * shrink
            updated[name] = torch.addcdiv(value, first[name], size, value=move)
        # From here on nothing is allocated, so that nothing can fail halfway.
        for name, new in updated.items():
            values[name].copy_(new)
        self.first |= first
        self.second |= second
        self.step = step
