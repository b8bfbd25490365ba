"""Attention at wider heads, with more of them: h heads of d channels become H of r d channels.

A narrow head's channels are repeated r times; heads beyond the narrow ones are zero and add
nothing. r q k / sqrt(r d) is q k / sqrt(d) for queries scaled by 1 / sqrt(r).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..widening.layers import inputs, outputs

R = 4  # channels of a head: 16 -> 64


def into_heads(value: Tensor, k: int, k_in: int | None = None, query: bool = False) -> Tensor:
    """A map to queries, keys or values (h d, in), or its bias (h d,), at k times the width.

    Inputs are repeated `k_in` times, or are wide already where it is None.
    """
    wide = outputs(value / math.sqrt(R) if query else value, R)
    idle = wide.new_zeros(k * len(value) - len(wide), *wide.shape[1:])
    wide = torch.cat([wide, idle])
    return inputs(wide, k_in) if k_in else wide


def out_of_heads(weight: Tensor, k: int) -> Tensor:
    """The map behind the heads (out, h d) at k times the width."""
    wide = inputs(outputs(weight, k), R)
    return torch.cat([wide, wide.new_zeros(len(wide), k * weight.shape[1] - wide.shape[1])], dim=1)


def idle(shape: torch.Size, ones: bool = False) -> Tensor:
    """Zeros (or ones) of a shape that take one number's room in memory and in a .ckpt file."""
    return torch.full((1,) * len(shape), float(ones)).expand(shape)
