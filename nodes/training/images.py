"""Images for training: checked, single, and of a size that the U-Net takes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...projection import ImageToPromptError
from ..inputs.checks import rgb

_SMALLEST, _LARGEST = 64, 16384  # pixels of a side
_ASPECT = 8  # beyond it the centre crop that CLIP encodes holds hardly anything of the image
# Few different sizes give few different batches; small images cannot lose so much.
_STEP, _SMALL_STEP, _SMALL = 64, 8, 256


def single_pictures(images: Sequence[object], crop: str, socket: str = "image") -> list[Tensor]:
    """Pictures (1, H, W, 3) float32, one by one, of batches whose sizes may differ.

    Raises ImageToPromptError for no pictures, or any that is too small, large or elongated.
    """
    if not images:
        raise ImageToPromptError("pictures", "none", f"Connect pictures (socket {socket}).")
    batches = [rgb(image, crop, socket) for image in images]
    for batch in batches:
        _check_size(batch.shape[1], batch.shape[2], socket)
    return [picture[None] for batch in batches for picture in batch]


def _check_size(height: int, width: int, socket: str) -> None:
    short, long = sorted((height, width))
    if short >= _SMALLEST and long <= _LARGEST and long <= _ASPECT * short:
        return
    raise ImageToPromptError(
        f"pictures with sides from {_SMALLEST} to {_LARGEST} pixels, within 1:{_ASPECT}",
        f"one of {width}x{height}",
        f"Leave it out, scale or crop it (socket {socket}).",
    )


def fitted_to(picture: Tensor, size: int) -> Tensor:
    """A picture (1, H, W, 3) scaled down to at most size x size pixels in all, edges cut to fit.

    Keeps the aspect ratio; small pictures are not enlarged. Sides become multiples of 64, or of
    8 where one is under 256, by cutting off the borders evenly.
    """
    height, width = picture.shape[1:3]
    scale = min(1.0, size / (height * width) ** 0.5)
    height, width = (max(_SMALL_STEP, round(scale * side)) for side in (height, width))
    scaled = (
        torch.nn.functional.interpolate(
            picture.movedim(-1, 1), (height, width), mode="bicubic", antialias=True
        ).movedim(1, -1)
        if scale < 1
        else picture
    )
    step = _STEP if min(height, width) >= _SMALL else _SMALL_STEP
    rows, columns = _middle(height, step), _middle(width, step)
    return scaled[:, rows, columns].clamp(0, 1).contiguous()


def _middle(side: int, step: int) -> slice:
    kept = side - side % step
    start = (side - kept) // 2
    return slice(start, start + kept)
