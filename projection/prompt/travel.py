"""Prompt embeddings for the frames of an animation: great circles between key pictures (ours).

    x_i = e_i - o                                 o: the common part, zero without one
    x(t) = (sin((1 - t) w) x_0 + sin(t w) x_1) / sin w         w: the angle between x_0 and x_1

The formula is spherical linear interpolation (Shoemake 1985); lengths are interpolated linearly.
Before the first key frame the first key's embedding holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ..errors import ImageToPromptError, quoted
from ..tensors import described, is_plain

MAX_FRAMES = 10_000
# Nearer to the antipode than this, rounding decides which way round the circle goes.
_ANTIPODE = 1e-4
# Below this angle in radians the circle is its chord, to float64's precision.
_TINY = 1e-7


def travel(embeddings: Tensor, frames: Sequence[int], common: Tensor | None = None) -> Tensor:
    """Prompt embeddings (F, D), one a frame from 0 to the last key frame.

    embeddings: (K, D), one for each key frame, finite and not zero: last-layer text states,
    or for readings image embeddings, joint CLIP space, of length 1. frames: K whole numbers >= 0
    that rise. common: (D,), the centre of the sphere, `Centred.common`; None is zero. At a key
    frame the result is that key's embedding bit for bit. Raises ImageToPromptError for
    embeddings that are none, zero or not finite, key frames that do not fit, or neighbours that
    point in opposite directions.
    """
    if not is_plain(embeddings) or embeddings.ndim != 2 or 0 in embeddings.shape:
        raise ImageToPromptError(
            "prompt embeddings (K, D) of at least one picture",
            described(embeddings),
            "Give one picture for each key frame.",
            "image",
        )
    check_frames(frames, len(embeddings))
    points = embeddings.cpu().double()  # some devices have no float64
    centre = torch.zeros_like(points[0]) if common is None else common.cpu().double()
    rows = embeddings[:1].expand(frames[0] + 1, -1)
    parts = [rows]
    for index in range(len(frames) - 1):
        ends = points[index] - centre, points[index + 1] - centre
        count = frames[index + 1] - frames[index]
        between = [centre + great_circle(*ends, step / count) for step in range(1, count)]
        if between:
            parts.append(torch.stack(between).to(embeddings))
        parts.append(embeddings[index + 1 : index + 2])
    return torch.cat(parts)


def great_circle(start: Tensor, end: Tensor, t: float) -> Tensor:
    """The point (D,) at share t of the way from `start` (D,) to `end` (D,), float64, none zero.

    Raises ImageToPromptError for zero or infinite ends, and for opposite directions.
    """
    lengths = start.norm(), end.norm()
    if not all(0 < float(length) < math.inf for length in lengths):
        raise ImageToPromptError(
            "prompt embeddings that are finite and differ from the common part",
            f"lengths {[round(float(length), 4) for length in lengths]}",
            "Check the images and the CLIP vision encoder for NaN.",
            "image",
        )
    a, b = start / lengths[0], end / lengths[1]
    # As exact for tiny as for wide angles, where acos is not.
    angle = 2 * float(torch.atan2((a - b).norm(), (a + b).norm()))
    if math.pi - angle < _ANTIPODE:
        raise ImageToPromptError(
            "neighbouring key pictures that have something in common",
            "embeddings that point in opposite directions",
            "Put another key picture between them.",
        )
    near, far = 1 - t, t
    if angle > _TINY:
        near, far = (math.sin(share * angle) / math.sin(angle) for share in (near, far))
    direction = near * a + far * b
    return torch.lerp(lengths[0], lengths[1], t) * direction / direction.norm()


def check_frames(frames: Sequence[int], count: int) -> None:
    """Raise ImageToPromptError unless there are `count` frames that rise from 0 or later on."""
    rising = all(low < high for low, high in pairwise(frames))
    fit = len(frames) == count > 0 and rising and frames[0] >= 0 and frames[-1] < MAX_FRAMES
    if not fit:
        raise ImageToPromptError(
            f"{count} key frames from 0 to {MAX_FRAMES - 1}, one for each picture, in rising order",
            f"[{', '.join(map(quoted, list(frames)[:9]))}]",
            "Correct the key frames.",
            "frames",
        )
