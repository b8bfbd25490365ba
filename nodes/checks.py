"""Checks of what comes in on sockets and widgets, before any work."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from numbers import Real

import torch
from torch import Tensor

from ..projection import ImageToPromptError, Projection

# Far beyond any use, and so small that a conditioning times it is still finite in float32.
_LARGEST = 1e6
# Centre-cropping scales the short side to 224; beyond this the long side would not fit in memory.
_MAX_ASPECT = 64


def check_projection(projection: object) -> Projection:
    """The payload of a PROJECTION socket, or an ImageToPromptError."""
    if not isinstance(projection, Projection):
        raise ImageToPromptError(
            "a PROJECTION", type(projection).__name__, "Connect LoadProjection (socket projection)."
        )
    return projection


def check_number(value: float, name: str) -> float:
    """A finite number of at most a million; values on links escape the widget's own range."""
    # Compared as it came: float() of a whole number can overflow.
    if not isinstance(value, Real) or not -_LARGEST <= value <= _LARGEST:
        expected = f"a finite {name}, at most {_LARGEST:.0f} away from 0"
        raise ImageToPromptError(expected, reprlib.repr(value), f"Correct {name}.")
    return float(value)


def check_count(value: int, name: str, lowest: int) -> int:
    """A whole number from `lowest` on; values on links escape the widget's own range."""
    if not isinstance(value, int) or value < lowest:
        raise ImageToPromptError(f"a whole {name} >= {lowest}", f"{value}", f"Correct {name}.")
    return value


def check_text(value: str, name: str) -> str:
    """A text; values on links can be anything."""
    if not isinstance(value, str):
        raise ImageToPromptError(f"{name} as a text", type(value).__name__, f"Correct {name}.")
    return value


def check_choice(value: str, options: Iterable[str], name: str) -> str:
    """One of a combo's options; ComfyUI before 0.33 does not check them."""
    allowed = list(options)
    if value not in allowed:
        quoted = ", ".join(repr(option) for option in allowed)
        raise ImageToPromptError(f"{name} among {quoted}", repr(value), f"Correct {name}.")
    return value


@contextmanager
def writing(prefix: str) -> Iterator[None]:
    """Turns an error of the file system, met in the block, into an ImageToPromptError.

    prefix: the file name without number and ending that was asked for.
    """
    try:
        yield
    except (OSError, UnicodeEncodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageToPromptError(
            "a file name that can be written to",
            f"{reason} for {reprlib.repr(prefix)}",
            "Correct filename_prefix, or see to its folder and disk.",
        ) from error


def rgb(image: object, crop: str, socket: str = "image") -> Tensor:
    """Pictures as (B, H, W, 3) float32 from an IMAGE of 1, 3 or 4 channels.

    Grey is repeated, an alpha channel is dropped, as core nodes do. Raises ImageToPromptError
    for another shape, no pictures, NaN, or sides too unequal to centre-crop.
    """
    got = f"{tuple(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
    shape = image.shape if isinstance(image, Tensor) else ()
    if len(shape) != 4 or 0 in shape or shape[-1] not in (1, 3, 4):
        _refuse_image("a picture or batch of shape (B, H, W, 1, 3 or 4)", got, socket)
    pictures = image.float()
    if not torch.isfinite(pictures).all():
        _refuse_image("finite pixels", "NaN or infinite ones", socket)
    height, width = shape[1:3]
    if crop == "center" and max(height, width) > _MAX_ASPECT * min(height, width):
        sides = f"sides within 1:{_MAX_ASPECT} for crop 'center'"
        _refuse_image(sides, f"{width}x{height}", socket)
    return pictures.expand(-1, -1, -1, 3) if shape[-1] == 1 else pictures[..., :3]


def _refuse_image(expected: str, got: str, socket: str) -> None:
    raise ImageToPromptError(expected, got, f"Correct what is connected to socket {socket}.")


def parse_weights(text: str) -> list[float] | None:
    """Numbers from '1, 0.5, 2'; None if there are none. Raises ImageToPromptError."""
    words = re.split(r"[\s,;]+", text.strip())
    if words == [""]:
        return None
    try:
        return [float(word) for word in words]
    except ValueError as error:
        raise ImageToPromptError(
            "numbers separated by commas, one per image", repr(text), "Correct image_weights."
        ) from error
