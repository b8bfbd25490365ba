"""Several pictures in one prompt of SD 2.x or SDXL: shared slots, and weights below zero (ours).

A picture whose slots are shared keeps states of its own: slot by slot the prompt holds those of one
picture. U-Nets read one pooled vector: it is that of the pictures' spherical mean.

A weight below 0 subtracts about the offset o of each reading, in units of its scale s,

    d_i - t q,  d = (e - o) / s,  t = sum |w_-| / sum w_+,  at most as long as d_i

where q is d of the spherical mean of the pictures with weights below 0. See `prompt.slots` for
SD 1.x, where all slots hold one kind of state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..prompt.conditioning import CHUNK
from ..prompt.slots import signed_rows, subtracted
from ..prompt.spherical_mean import spherical_mean
from .readings import Readings

States = Mapping[str, Tensor]


def mean_states(
    readings: Readings, image_embeds: Tensor, weights: Sequence[float] | None
) -> dict[str, Tensor]:
    """States (1, D) of the pictures' weighted mean by the reading's name; see the module.

    image_embeds: (B, J) of length 1. weights: B finite numbers, one above 0; None is all equal.
    Raises ImageToPromptError for unfit weights, and as `Readings.apply`.
    """
    if weights is None or all(weight >= 0 for weight in weights):
        return readings.apply(spherical_mean(image_embeds, weights))
    rows, positive, below, negative = signed_rows(weights, len(image_embeds))
    mean = readings.apply(spherical_mean(image_embeds[rows], positive))
    share = math.fsum(negative) / math.fsum(positive)
    return _less(readings, mean, spherical_mean(image_embeds[below], negative), share)


def shared_states(
    readings: Readings, image_embeds: Tensor, weights: Sequence[float] | None
) -> tuple[dict[str, Tensor], list[float]]:
    """States (P, D) by the reading's name of the P pictures that share slots, and their weights.

    As `mean_states`, whose pooled vector (1, D) theirs is; pictures with weights below 0 are
    subtracted from each of the others.
    """
    rows, positive, below, negative = signed_rows(weights, len(image_embeds))
    found = readings.apply(image_embeds[rows])
    if below:
        share = math.fsum(negative) / math.fsum(positive)
        found = _less(readings, found, spherical_mean(image_embeds[below], negative), share)
    return {**found, "pooled": mean_states(readings, image_embeds, weights)["pooled"]}, positive


def by_slots(states: Tensor, slots: Tensor) -> Tensor:
    """One conditioning (1, 77 n, D) of P pictures' (P, 77 n, D): slot by slot one of them.

    slots: (1, 77 m), rows of states, see `shared_slots`; of the last chunk where n > m.
    """
    length = states.shape[1]
    given = slots.split(CHUNK, dim=1)
    chunks = [given[min(n, len(given) - 1)] for n in range(length // CHUNK)]
    rows = torch.cat(chunks, dim=1).to(states.device)
    return states[rows, torch.arange(length, device=states.device)]


def _less(readings: Readings, states: States, mean: Tensor, share: float) -> dict[str, Tensor]:
    """States less `share` of what the mean picture (1, J) adds to each reading's offset."""
    taken, found = readings.apply(mean), {}
    for name, rows in states.items():
        reading = readings.readings[name]
        offset, scale = reading.offset.to(rows), reading.scale.to(rows)
        origin = torch.zeros_like(offset)
        deviation = subtracted(
            (rows - offset) / scale, (taken[name] - offset) / scale, share, origin
        )
        found[name] = offset + deviation * scale
    return found
