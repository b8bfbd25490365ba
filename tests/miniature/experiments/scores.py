"""Scores of generated pictures, each with a 95 % interval."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel

from ..models import SECOND_SIDE
from ..training.train_clip import image_states
from ..world.oracle import agreement, read
from ..world.preprocess import preprocess
from ..world.scenes import Scenes

Z = 1.959964
Score = dict[str, float | None]


def share(hits: Tensor) -> Score:
    """Share of true values with Wilson's interval."""
    n, p = len(hits), float(hits.float().mean())
    middle = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    # At p = 0 or 1 rounding could put the end of the interval on the wrong side of p.
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return {"value": p, "low": min(p, low), "high": max(p, high)}


def mean(values: Tensor) -> Score:
    """Mean of the finite values with its normal interval; None where fewer than two are."""
    values = values[values.isfinite()]
    if len(values) < 2:
        return {"value": None, "low": None, "high": None}
    centre, half = float(values.mean()), Z * float(values.std()) / math.sqrt(len(values))
    return {"value": centre, "low": centre - half, "high": centre + half}


@torch.no_grad()
def second_embeds(second: CLIPModel, pictures: Tensor) -> Tensor:
    """Unit embeddings (N, 64) of pictures by the second, separately trained encoder."""
    states = image_states(second, preprocess(pictures, SECOND_SIDE))
    return F.normalize(second.visual_projection(states), dim=-1)


def score(
    second: CLIPModel, pictures: Tensor, truth: Scenes, reference: Tensor
) -> dict[str, Score]:
    """One row: pictures (N, 3, 64, 64) against the scenes and pictures they should repeat."""
    found = agreement(read(pictures), truth)
    similar = (second_embeds(second, pictures) * second_embeds(second, reference)).sum(dim=-1)
    shares = {name: share(found[name]) for name in ("shape", "figure_colour", "ground_colour")}
    errors = {name: mean(found[name]) for name in ("position_error", "size_error")}
    return shares | errors | {"clip_similarity": mean(similar)}
