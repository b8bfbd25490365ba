"""Words in the joint space that a family's readings start from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...projection import Projection, Readings, text_projection_of
from ..host.families.captions import caption_states


def words_in_joint_space(
    projection: Projection, readings: Readings, clip: Any, words: Sequence[str]
) -> Tensor:
    """Text embeddings (N, J) of words, joint CLIP space, not normalised.

    By the text encoder of the projection's own CLIP, which is one of the family's.
    """
    [part] = (p for p in readings.family.parts if p.width == projection.encoder.text_width)
    weight = text_projection_of(projection)
    joint, _ = caption_states(clip, readings.family, readings.layer, words, part.key, weight)
    return joint
