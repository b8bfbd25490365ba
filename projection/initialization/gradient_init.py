"""Where a low-rank change listens before it has learnt: where the loss's gradient points.

    y = W x + B A x         dL/dW = G;   A: orthonormal rows that span those of Q G, Q random

At the start B = 0, so that A alone changes nothing and gets no gradient, and random rows hear
little of what matters. With B lent out as Q and A as 0 the model is the same, and the gradient for
A is then Q^T G: a sketch of the directions in which the input should be heard (Halko et al. 2011
for the sketch; LoRA-GA, Wang et al. 2024, starts from the gradient's singular vectors). It costs
about one step. With A fixed there, B alone is trained (ours).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..adapters.deep_prompts import VisionTower
from ..data.batches import Batch
from ..diffusion.denoiser import Denoiser
from ..diffusion.loss import Run, gradients
from ..projector import Projection
from ..state_dict import with_adapters
from ..training.presets import TrainingConfig

_RANK_CUT = 1e-3  # of the largest singular value: far above rounding


@dataclass(frozen=True, eq=False)
class _Lent:
    """What the loss reads of a `TrainableParameters`: the same projection, whose A may be asked."""

    start: Projection
    live: Projection
    values: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class _Asked:
    """A `Run` of the loss that asks for A."""

    trainable: _Lent
    denoiser: Denoiser
    recipe: TrainingConfig
    tower: VisionTower | None
    null: Tensor
    loss_weights: Tensor
    chunk: int


def gradient_directions(
    run: Run, names: Sequence[str], batches: Iterable[Batch], generator: torch.Generator
) -> dict[str, Tensor]:
    """A (R, C) float32 for each of these deltas, named `cross-attention.<map>`; B must be 0.

    Not finite where the loss is not. `run` is left as it was.
    """
    given = run.trainable.values
    lent = {name: value.detach() for name, value in given.items()}
    asked = {}
    for name in names:
        up = given[f"{name}.up"]
        lent[f"{name}.up"] = torch.randn(up.shape, generator=generator).to(up)
        asked[f"{name}.down"] = torch.zeros_like(given[f"{name}.down"]).requires_grad_(True)
    lent |= asked
    start = run.trainable.start
    other = _Asked(
        _Lent(start, with_adapters(start, lent), asked),
        run.denoiser,
        run.recipe,
        run.tower,
        run.null,
        run.loss_weights,
        run.chunk,
    )
    total = {name: torch.zeros_like(value) for name, value in asked.items()}
    for batch in batches:
        for name, slope in gradients(other, batch)[1].items():
            total[name] += slope
    return {name: _rows(total[f"{name}.down"]) for name in names}


def _rows(slope: Tensor) -> Tensor:
    """Orthonormal rows that span those of (R, C), R <= C; 0 beyond the rank that it has.

    A single picture's prompt asks attn2 for one or two directions: rows of rounding errors would
    hear nothing of it, but texts.
    """
    if not slope.isfinite().all():
        return torch.full_like(slope, torch.nan)
    _, sizes, rows = torch.linalg.svd(slope.detach().cpu().double(), full_matrices=False)
    return torch.where((sizes > _RANK_CUT * sizes[0])[:, None], rows, 0.0).to(slope)
