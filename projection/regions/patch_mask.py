"""A mask of a picture as an attention bias of CLIP's vision transformer, or as a crop.

    softmax(q k^T / sqrt(d) + log w)        w: share of each patch that the mask covers

in every layer, with w = 1 for the class token (ours; the additive form is that of key padding
masks). A patch that the mask does not cover is attended to by no token, so nothing of it reaches
the image embedding; a patch of weight w counts as w patches would. Weights are relative to the
largest one, so that an even mask changes nothing.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ImageToPromptError

# Behind softmax exactly zero, and within float16.
HIDDEN = -1e4
# Less of a patch than one level of an 8-bit mask is nothing.
_LEAST = 1 / 255
# On each side of what a crop is made around, as a share of its longer side.
CROP_MARGIN = 0.15


def patch_weights(mask: Tensor, patch: int) -> Tensor:
    """Share of each patch that a mask covers, (B, P), in the order of the patches.

    mask: (B, S, S), 0..1, at the size that the vision transformer reads; patch: side of a patch
    in pixels. Pixels behind the last whole patch are dropped, as in the patch embedding.
    """
    return F.avg_pool2d(mask[:, None].float(), patch).flatten(1)


def key_bias(weights: Tensor) -> Tensor:
    """Attention bias (B, 1 + P) of class token and patches, from weights (B, P) >= 0.

    Raises ImageToPromptError where a mask covers no patch.
    """
    largest = weights.amax(dim=1, keepdim=True)
    if not bool((largest > _LEAST).all()):
        raise empty_mask()
    shares = weights / largest
    bias = shares.clamp_min(_LEAST).log().masked_fill(shares <= _LEAST, HIDDEN)
    return F.pad(bias, (1, 0))  # the class token is always attended to


def square_around(mask: Tensor, margin: float = CROP_MARGIN) -> tuple[slice, slice]:
    """Rows and columns of the square around what a mask (H, W), 0..1, covers.

    The covered part is where the mask is above half of its largest value. The square stays inside
    the picture; where the covered part is longer than the picture's other side it becomes a
    rectangle. Raises ImageToPromptError for an empty mask.
    """
    if not bool((mask > _LEAST).any()):
        raise empty_mask()
    covered = mask > mask.max() / 2
    spans = [torch.nonzero(covered.any(dim=dim)).flatten() for dim in (1, 0)]
    ends = [(int(span[0]), int(span[-1]) + 1) for span in spans]
    side = math.ceil((1 + 2 * margin) * max(stop - start for start, stop in ends))
    rows, columns = (
        _centred_slice(start, stop, side, size)
        for (start, stop), size in zip(ends, mask.shape, strict=True)
    )
    return rows, columns


def _centred_slice(start: int, stop: int, side: int, size: int) -> slice:
    """A slice of `side` around start..stop, moved and cut so that it lies in 0..size."""
    side = min(side, size)
    first = min(max(0, (start + stop - side) // 2), size - side)
    return slice(first, first + side)


def empty_mask() -> ImageToPromptError:
    """The error for a mask that covers nothing."""
    return ImageToPromptError(
        "a mask that covers some of what CLIP encodes",
        "an empty one",
        "Cover the part of the picture that counts.",
        "mask",
    )
