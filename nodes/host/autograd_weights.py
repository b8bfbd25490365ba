"""The host's weights as autograd may keep them, in the same memory. Read in 0.3.64 and 0.33.0.

What ComfyUI loads are inference tensors, which autograd refuses to save for a backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def autograd_weights(module: torch.nn.Module, device: torch.device) -> dict[str, Tensor]:
    """The module's weights by name, as frozen tensors on the device that autograd may save.

    In their own memory, but for what the host has left elsewhere to stream it on demand (0.33).
    """
    return {
        name: as_normal_tensor(weight).to(device)
        for name, weight in module.named_parameters()
        if type(weight) in (Tensor, torch.nn.Parameter)  # the host's quantised ones cast themselves
    }


def as_normal_tensor(tensor: Tensor) -> Tensor:
    """The same numbers in the same memory, neither an inference tensor nor trainable."""
    if not tensor.is_inference():
        return tensor.detach()
    empty = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return empty.set_(
        tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride()
    )


class AutogradModule:
    """A module of the host's, called with weights that autograd may save; it stays as it is."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module

    def __call__(self, *inputs: Any) -> Tensor:
        weights = autograd_weights(self._module, inputs[0].device)
        return torch.func.functional_call(self._module, weights, inputs)
