"""LoRA's A from the gradient of the loss before the first step.

    y = W x + B A x         dL/dW = G;   A: orthonormal rows that span those of Q^T G, Q random

At the start B = 0, so that A has no gradient, and random rows respond to few of the inputs that
matter. LoRA-GA (Wang et al. 2024) starts A from the singular vectors of G. Here G is never formed:
with B = Q and A = 0 the model is the same, and the gradient of A is Q^T G, a randomised sketch of
G's row space (Halko et al. 2011). The sketch in place of the singular vectors, with B kept at 0,
is ours. It costs about one training step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..adapters.lora import Delta, LoRADelta
from ..adapters.unet_deltas import UNetDeltas
from ..data.batches import Batch
from ..diffusion.loss import DiffusionLoss
from ..projector import Projection
from ..state_dict import detached_copy

_RANK_CUT = 1e-3  # of the largest singular value: far above rounding


def gradient_directions(
    loss: DiffusionLoss,
    initial: Projection,
    current: Projection,
    modules: Sequence[str],
    batches: Iterable[Batch],
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """A (R, C) float32 for the low-rank delta of each of these modules; its B must be 0.

    initial, current: the projection before training, and with the deltas. Not finite where the
    loss is not. Raises KeyError for a module without a low-rank delta.
    """
    probed, probes = _probed(current, modules, generator)
    total = {name: torch.zeros_like(probe) for name, probe in probes.items()}
    for batch in batches:
        _, grads = loss.gradients(initial, probed, probes, batch)
        for name, grad in grads.items():
            total[name] += grad
    return {name: _orthonormal_rows(total[name]) for name in modules}


def _probed(
    current: Projection, modules: Sequence[str], generator: torch.Generator
) -> tuple[Projection, dict[str, Tensor]]:
    """The projection with B = Q and A = 0 in these modules' deltas, and the A's by module."""
    own = detached_copy(current)
    deltas: dict[str, Delta] = dict(own.cross_attention.deltas) if own.cross_attention else {}
    probes = {}
    for name in modules:
        delta = deltas[name]
        if not isinstance(delta, LoRADelta):
            raise KeyError(name)
        probes[name] = torch.zeros_like(delta.down).requires_grad_(True)
        sketch = torch.randn(delta.up.shape, generator=generator).to(delta.up)
        deltas[name] = LoRADelta(probes[name], sketch)
    return replace(own, cross_attention=UNetDeltas(deltas)), probes


def _orthonormal_rows(grad: Tensor) -> Tensor:
    """Orthonormal rows that span those of (R, C), R <= C; 0 beyond the rank of these.

    The prompt of a single image has one or two directions at attn2: further rows would be made
    of rounding errors, and respond to texts only.
    """
    if not grad.isfinite().all():
        return torch.full_like(grad, torch.nan)
    _, sizes, rows = torch.linalg.svd(grad.detach().cpu().double(), full_matrices=False)
    return torch.where((sizes > _RANK_CUT * sizes[0])[:, None], rows, 0.0).to(grad)
