"""Training that starts from the deltas of an earlier one, maybe of another preset (ours).

Learning rates suit rows of A of a certain length: those of `pca_init` have unit gain over the
prompts, those of `gradient_init` are unit vectors, whose gain is some thirty times as high. With
B A = (B / s) (s A) and s such that the given rows are as long as fresh ones, a step changes the
delta by as much as it would change a fresh one. s is a power of two, so that nothing is rounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log2

from torch import Tensor

from ..adapters.lora import Delta, FullDelta, LoRADelta
from ..adapters.unet_deltas import UNetDeltas


def warm_start(
    given: UNetDeltas | None, fresh: Mapping[str, Delta]
) -> tuple[dict[str, Delta], dict[str, float]]:
    """Deltas to train by module: the given ones in float32, fresh ones where there is none.

    Second: the factor s by which A of a given low-rank delta was multiplied, see `restored`.
    """
    known = {} if given is None else given.deltas
    factors: dict[str, float] = {}
    deltas: dict[str, Delta] = {}
    for name, delta in known.items():
        start = fresh.get(name)
        if isinstance(delta, LoRADelta):
            factors[name] = _factor(delta, start) if isinstance(start, LoRADelta) else 1.0
            deltas[name] = delta.rescaled(factors[name])
        else:
            deltas[name] = FullDelta(delta.matrix.float())
    return deltas | {n: delta for n, delta in fresh.items() if n not in known}, factors


def restored(trained: UNetDeltas, factors: Mapping[str, float]) -> UNetDeltas:
    """The same deltas with A and B scaled as they were given to `warm_start`."""
    return UNetDeltas(
        {
            name: delta.rescaled(1 / factors[name])
            if isinstance(delta, LoRADelta) and name in factors
            else delta
            for name, delta in trained.deltas.items()
        }
    )


def _factor(given: LoRADelta, fresh: LoRADelta) -> float:
    """The power of two nearest to the ratio of their longest rows; 1 where one has none."""
    longest = [_longest_row(delta.down) for delta in (fresh, given)]
    return 2.0 ** round(log2(longest[0] / longest[1])) if all(longest) else 1.0


def _longest_row(rows: Tensor) -> float:
    return float(rows.detach().float().norm(dim=1).max())
