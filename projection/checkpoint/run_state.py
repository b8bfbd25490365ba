"""The state of a training run as a file has it: all of it is checked before any of it is used."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor

from ..errors import ImageToPromptError

DO = "Fit anew, or go on with the same images, model, preset and seed."
# The tensors of a run: values, AdamW's moments, and the best values by held-out loss.
VALUE, FIRST, SECOND, BEST = "value", "first", "second", "best"
_KINDS = (VALUE, FIRST, SECOND)
SKETCH = "sketch"  # of the run's inputs, beside its state


@dataclass(frozen=True, eq=False)
class RunState:
    """Everything that changes in a run. tensors: by kind and name."""

    tensors: Mapping[str, Mapping[str, Tensor]]
    losses: list[float]
    held_out_losses: list[tuple[int, float]]


def read_state(
    file: Any, facts: Mapping[str, str], values: Mapping[str, Tensor], name: str
) -> RunState:
    """The state in an open safetensors file with this metadata, everything checked.

    values: the run's own, whose names, shapes and devices are wanted. name: the file's.
    Raises ImageToPromptError for a damaged file.
    """
    try:
        losses = _losses(facts["losses"])
        held_out = _held_out_losses(facts["held_out_losses"], len(losses))
        kinds = (*_KINDS, BEST) if held_out else _KINDS
        wanted = {f"{kind}/{n}" for kind in kinds for n in values}
        if unknown := set(file.keys()) - wanted - {SKETCH}:
            raise ValueError(f"unknown {sorted(unknown)[0]}")
        tensors = {
            kind: {n: _tensor(file, f"{kind}/{n}", value) for n, value in values.items()}
            for kind in kinds
        }
        if any(bool((moment < 0).any()) for moment in tensors[SECOND].values()):
            raise ValueError("negative second moments")
    except KeyError as error:
        raise ImageToPromptError("a whole saved run", f"{name} without {error}", DO) from error
    except (ValueError, RecursionError) as error:
        raise ImageToPromptError("a whole saved run", f"{name} with {error}", DO) from error
    return RunState(tensors, losses, held_out)


def _tensor(file: Any, key: str, like: Tensor) -> Tensor:
    """A tensor of the file, of this shape, on its device. Raises KeyError or ValueError."""
    if key not in file.keys():  # noqa: SIM118
        raise KeyError(key)
    part = file.get_slice(key)
    shape, dtype = tuple(part.get_shape()), part.get_dtype()
    if dtype != "F32" or shape != tuple(like.shape):
        raise ValueError(f"{key} of {dtype} {shape}")
    tensor = file.get_tensor(key).clone()  # what safe_open gives may be a view of the file
    if not tensor.isfinite().all():
        raise ValueError(f"infinite or NaN numbers in {key}")
    return tensor.to(like.device)


def _losses(text: str) -> list[float]:
    """Finite losses of every step. Raises ValueError."""
    losses = json.loads(text)
    if not isinstance(losses, list) or not all(_is_loss(x) and x < math.inf for x in losses):
        raise ValueError("losses that are no list of finite numbers >= 0")
    return losses


def _held_out_losses(text: str, steps: int) -> list[tuple[int, float]]:
    """Pairs of a step, increasing, and a loss. Raises ValueError."""
    pairs = json.loads(text)
    whole = isinstance(pairs, list) and all(
        isinstance(pair, list) and len(pair) == 2 and type(pair[0]) is int and _is_loss(pair[1])
        for pair in pairs
    )
    order = [-1, *(pair[0] for pair in pairs)] if whole else []
    if not whole or order[-1] > steps or any(a >= b for a, b in pairwise(order)):
        raise ValueError("held-out losses that are no pairs of a step and a loss")
    return [(step, loss) for step, loss in pairs]


def _is_loss(value: object) -> bool:
    """A mean square error: a float >= 0, infinite where a held-out loss was not a number."""
    return type(value) is float and value >= 0
