"""Training that goes on from the deltas of an earlier one, maybe of another preset (ours).

Rates suit rows A of a certain length: those of `keys` hear a prompt as 1, those of whole blocks
are unit vectors, some thirty times as loud. B A = (B / s) (s A): with s such that the given rows
are as long as fresh ones would be, a step counts as it would for those. s is a power of two, so
that nothing is rounded on the way in and out.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log2

from torch import Tensor

from ..state_dict import CROSS


def warm_start(
    known: Mapping[str, Tensor], fresh: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Deltas that a projection has, and fresh ones for the maps that it does not change.

    Both are named as `adapter_state_dict` names them. The given ones come in float32 and scaled;
    second: by how much to multiply each of these to have it as it came.
    """
    given = {name: value for name, value in known.items() if name.startswith(CROSS)}
    taken = {name.rpartition(".")[0] for name in given}
    back = {}
    for name in taken:
        if f"{name}.down" in given and f"{name}.down" in fresh:
            scale = _scale(given[f"{name}.down"], fresh[f"{name}.down"])
            back |= {f"{name}.down": 1 / scale, f"{name}.up": scale}
    start = {name: value.float() / back.get(name, 1.0) for name, value in given.items()}
    others = {n: v for n, v in fresh.items() if n.rpartition(".")[0] not in taken}
    return start | others, back


def _scale(given: Tensor, fresh: Tensor) -> float:
    """The power of two nearest to the ratio of their longest rows; 1 where one has none."""
    longest = [float(rows.detach().float().norm(dim=1).max()) for rows in (fresh, given)]
    return 2.0 ** round(log2(longest[0] / longest[1])) if all(longest) else 1.0


def drop_zero_deltas(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All of these but the deltas that change nothing, as B or D is 0."""
    silent = {
        name.rpartition(".")[0]
        for name, value in tensors.items()
        if name.startswith(CROSS) and name.endswith((".up", ".matrix")) and not value.any()
    }
    return {n: v for n, v in tensors.items() if n.rpartition(".")[0] not in silent}
