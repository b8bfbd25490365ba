"""Masks on sockets: one for each picture, of its size, and what is done with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...projection import ImageToPromptError
from ...projection.regions.patch_mask import empty_mask, square_around
from ...projection.tensors import described, is_plain
from .checks import check_choice
from .embed_inputs import MASK_USES


def masks_for(masks: Sequence[Any], pictures: Sequence[Tensor]) -> list[Tensor] | None:
    """A mask (H, W), 0..1, for each picture (1, H, W, 3); None for a socket that has none.

    masks: what came in, each None, (H, W) or (B, H, W). One mask serves all pictures. Raises
    ImageToPromptError for another kind of value or number, an empty mask, or another size.
    """
    if all(mask is None for mask in masks):
        return None
    found = [one for mask in masks for one in _planes(mask)]
    if len(found) == 1:
        found = found * len(pictures)
    if len(found) != len(pictures):
        _refuse(f"one mask, or one for each of {len(pictures)} pictures", f"{len(found)}")
    for mask, picture in zip(found, pictures, strict=True):
        if not bool((mask > 0).any()):
            raise empty_mask()
        if mask.shape != picture.shape[1:3]:
            height, width = picture.shape[1:3]
            got = f"{mask.shape[1]}x{mask.shape[0]}"
            _refuse(f"a mask of the picture's size, {width}x{height}", got)
    return found


def _planes(mask: Any) -> tuple[Tensor, ...]:
    """The masks (H, W), 0..1, of one value."""
    expected = "a mask of shape (H, W) or (B, H, W)"
    if not isinstance(mask, Tensor):
        _refuse(expected, type(mask).__name__)
    if not is_plain(mask) or mask.ndim not in (2, 3) or 0 in mask.shape:
        _refuse(expected, described(mask))
    if not bool(torch.isfinite(mask).all()):
        _refuse("a mask of finite numbers", "NaN or infinite ones")
    planes = mask.float().clamp(0, 1)
    return planes.reshape(-1, *planes.shape[-2:]).unbind()


def _refuse(expected: str, got: str) -> None:
    raise ImageToPromptError(expected, got, "Correct what is connected to socket mask.")


def masked(
    pictures: list[Tensor], masks: list[Tensor] | None, use: object
) -> tuple[list[Tensor], list[Tensor] | None]:
    """Pictures as CLIP encodes them, and masks of what it attends to, for an option of MASK_USES.

    pictures: (1, H, W, 3) each; masks: (H, W) each, or None.
    """
    crop = check_choice(use, MASK_USES, "mask_use") == MASK_USES[1]
    if masks is None or not crop:
        return pictures, masks
    parts = []
    for picture, mask in zip(pictures, masks, strict=True):
        rows, columns = square_around(mask)
        parts.append(picture[:, rows, columns])
    return parts, None
