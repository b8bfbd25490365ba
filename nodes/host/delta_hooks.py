"""Changes of linear maps while they are trained, added by forward hooks; the weights stay.

In float16 the gradients of a mean loss fall below the smallest number. They are scaled up inside
of the U-Net and down again where they leave it: at the context and at the changes (loss scaling,
Micikevicius et al. 2018).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor


@contextmanager
def delta_hooks(unet: torch.nn.Module, deltas: Mapping[str, Any], factor: float) -> Iterator[None]:
    """Within the block every linear map in `deltas` gives W x + delta(x).

    deltas: LoRADelta or FullDelta by the map's name. factor: how much larger gradients are inside
    of the U-Net, see `gradient_factor`.
    """
    with ExitStack() as stack:
        for name, delta in deltas.items():

            def add(_: Any, inputs: tuple[Tensor], output: Tensor, delta: Any = delta) -> Tensor:
                if output.dtype == inputs[0].dtype == torch.float32 and factor == 1:
                    return delta.added_to(output, inputs[0])
                # In float32, and outside of the scaled gradients: these weights are trained.
                change = delta(scale_gradient(inputs[0].float(), factor))
                return output + scale_gradient(change, 1 / factor).to(output)

            hook = unet.get_submodule(name).register_forward_hook(add)
            stack.callback(hook.remove)
        yield


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


def scale_gradient(tensor: Tensor, factor: float) -> Tensor:
    """The tensor itself; its gradient is multiplied by the factor."""
    return tensor if factor == 1 else _ScaleGradient.apply(tensor, factor)


def gradient_factor(noisy: Tensor, dtype: torch.dtype) -> float:
    """A power of two that brings a mean loss's gradients into float16's range; else 1.

    noisy: (B, 4, h, w). Gradients of a mean are about 1 / elements.
    """
    if dtype != torch.float16:
        return 1.0
    return 2.0 ** max(0, math.floor(math.log2(noisy.numel())) - 3)
