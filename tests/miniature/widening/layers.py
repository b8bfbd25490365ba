"""Widening: the same function with every channel repeated k times in place.

A layer y = W x + b whose input channels are repeated k times keeps its output if W's columns are
repeated and divided by k; repeating its rows (and b) repeats the output's channels in turn. The
mean and variance of a group of repeated channels are those of the group, so LayerNorm and
GroupNorm only need their weights repeated. A query times a key of k repeats is k times as large
while the host divides it by sqrt(k d) in place of sqrt(d): the query is scaled by 1/sqrt(k).
"""

from __future__ import annotations

import math

from torch import Tensor

State = dict[str, Tensor]


def outputs(value: Tensor, k: int) -> Tensor:
    """Repeat output channels: rows of a weight, entries of a bias or norm."""
    return value.repeat_interleave(k, dim=0)


def inputs(weight: Tensor, k: int) -> Tensor:
    """Repeat the input channels of a weight (out, in, ...) and share the sum among them."""
    return weight.repeat_interleave(k, dim=1) / k


def embedding(table: Tensor, k: int) -> Tensor:
    """Repeat the last dimension: tables of positions, tokens, and the class embedding."""
    return table.repeat_interleave(k, dim=-1)


def layer(name: str, value: Tensor, k: int, k_in: int | None = None) -> Tensor:
    """A weight, bias or norm between widened layers; `k_in` where the input's factor differs."""
    if name.endswith(("q_proj.weight", "q_proj.bias", "to_q.weight")):
        value = value / math.sqrt(k)
    wide = outputs(value, k)
    return inputs(wide, k_in or k) if value.ndim > 1 else wide
