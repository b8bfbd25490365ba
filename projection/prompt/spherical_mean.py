"""One prompt from several pictures: the weighted spherical (Karcher) mean (ours).

Prompt embeddings lie on a sphere; their straight average falls inside it. The spherical mean is
the point of the sphere that minimises sum_i w_i * angle(m, e_i)^2. With a common part (that of a
centred projection, see `closed_form.centred`) the mean is taken of what the embeddings add to it:
otherwise the common part would grow with every picture that differs.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import ImageToPromptError, quoted
from ..tensors import described, is_plain

_MAX_STEPS = 200
_TOLERANCE = 1e-13
# Nearer to a point's antipode than this, rounding decides which way leads to the point.
_ANTIPODE = 1e-4


def spherical_mean(
    embeddings: Tensor, weights: Sequence[float] | None = None, common: Tensor | None = None
) -> Tensor:
    """The weighted mean (1, D) of `embeddings` (B, D) on the sphere of their length.

    weights: B finite numbers >= 0, not all zero; None is all equal. A weight of 0 leaves its
    picture out. common: (D,), the centre of the sphere, `Centred.common`; None is zero. Copies of
    one row give that row bit for bit, and the order of rows never matters, not even in the last
    bit. Raises ImageToPromptError for embeddings that are none, zero or not finite, unfit
    weights, or pictures so opposite that they have no mean.
    """
    _check_rows(embeddings)
    checked = _check_weights(weights, len(embeddings))
    rows, merged = _merge_copies(embeddings, checked)
    if len(rows) == 1:
        return rows
    points = rows.cpu().double()  # some devices have no float64
    centre = None if common is None else common.cpu().double()
    if centre is not None:
        points = points - centre
    radius = points.norm(dim=-1, keepdim=True)
    mean = _karcher_mean(points / radius, merged)
    # Rows share one length up to rounding; fall back on their mean where they do not.
    found = mean * (merged @ radius)
    return (found if centre is None else found + centre).to(embeddings).reshape(1, -1)


def _check_rows(embeddings: Tensor) -> None:
    fit = is_plain(embeddings) and embeddings.ndim == 2 and 0 not in embeddings.shape
    lengths = embeddings.double().norm(dim=-1) if fit else torch.zeros(1)
    if not fit or not (torch.isfinite(lengths) & (lengths > 0)).all():
        raise ImageToPromptError(
            "prompt embeddings (B, D) of at least one picture, finite and none of them all zero",
            described(embeddings)
            + (f" with lengths {[round(x, 4) for x in lengths.tolist()[:8]]}" if fit else ""),
            "Check the images and the CLIP vision encoder for NaN.",
            "image",
        )


def _check_weights(weights: Sequence[float] | None, count: int) -> list[float]:
    if weights is None:
        return [1.0] * count
    # False for NaN; a whole number can be larger than any float.
    each = all(0 <= w <= sys.float_info.max for w in weights)
    if len(weights) != count or not each or not 0 < sum(map(float, weights)) < math.inf:
        raise ImageToPromptError(
            f"{count} finite weights >= 0, one per image, not all zero and not too large to add",
            f"[{', '.join(map(quoted, list(weights)[:9]))}]",
            "Correct the weights, or give None for equal ones.",
            "image weights",
        )
    return [float(w) for w in weights]


def _merge_copies(embeddings: Tensor, weights: list[float]) -> tuple[Tensor, Tensor]:
    """Distinct rows in a canonical order, with their weights summed without rounding order."""
    used = [i for i, weight in enumerate(weights) if weight > 0]
    rows, group = torch.unique(embeddings[used], dim=0, return_inverse=True)
    members: list[list[float]] = [[] for _ in rows]
    for index, row in zip(used, group.tolist(), strict=True):
        members[row].append(weights[index])
    sums = [math.fsum(each) for each in members]
    total = math.fsum(sums)
    shares = torch.tensor([s / total for s in sums], dtype=torch.float64)
    return rows, shares


def _karcher_mean(points: Tensor, weights: Tensor) -> Tensor:
    """Karcher mean (D,) of unit rows (B, D) float64 with weights (B,) that sum to 1."""
    start = weights @ points
    if start.norm() < 1e-6:
        raise _opposite()
    mean = start / start.norm()
    for _ in range(_MAX_STEPS):
        step = weights @ _logarithm(mean, points)
        length = step.norm()
        if length < _TOLERANCE:
            break
        mean = torch.cos(length) * mean + torch.sin(length) * step / length
        mean = mean / mean.norm()
    return mean


def _opposite() -> ImageToPromptError:
    return ImageToPromptError(
        "pictures that have something in common",
        "embeddings that point in opposite directions",
        "Use one prompt per image, or leave one of them out.",
    )


def _logarithm(mean: Tensor, points: Tensor) -> Tensor:
    """Tangent vectors (B, D) at `mean` that lead to `points`, as long as the angles."""
    cosine = (points @ mean).clamp(-1.0, 1.0)
    tangent = points - cosine[:, None] * mean
    sine = tangent.norm(dim=-1)
    if ((cosine < 0) & (sine < _ANTIPODE)).any():
        raise _opposite()
    angle = torch.atan2(sine, cosine)  # exact for tiny angles, where acos is not
    return tangent * (angle / sine.clamp_min(torch.finfo(sine.dtype).tiny))[:, None]
