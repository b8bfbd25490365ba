"""What Load Projection reads of the user's: captions, and pictures whose mean is removed."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...projection import ImageToPromptError
from .checks import check_text, rgb
from .lists import as_list

CROP = "center"


def caption_lines(captions: object) -> list[str]:
    """One caption a line, without empty lines."""
    lines = [line.strip() for line in check_text(captions, "captions").splitlines()]
    return [line for line in lines if line]


def given_pictures(image: Any, clip_vision: Any) -> list[Tensor] | None:
    """The pictures (1, H, W, 3) of a batch, or of a list of batches of any sizes; None for none.

    Raises ImageToPromptError where there is no vision model to embed them with.
    """
    if image is None:
        return None
    batches = as_list(image, "image")
    pictures = [picture for batch in batches for picture in rgb(batch, CROP).split(1)]
    if clip_vision is None:
        raise ImageToPromptError(
            "a CLIP vision model to embed the pictures with",
            "none",
            "Connect Load CLIP Vision (socket clip_vision), or nothing to socket image.",
        )
    return pictures
