"""Checks of what comes in on sockets and widgets, before any work."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from ...projection import ImageToPromptError, Projection
from ...projection.errors import quoted
from ...projection.tensors import described, is_plain

# Far beyond any use, and so small that a conditioning times it is still finite in float32.
_LARGEST = 1e6
# Centre-cropping scales the short side to 224; beyond this the long side would not fit in memory.
_MAX_ASPECT = 64
# Beyond what scaling and bright scenes give: a picture on the scale to 255.
_BRIGHTEST = 100.0


# By socket: the type that the host names it by, and what the host's own nodes call of it.
_MODELS = MappingProxyType(
    {
        "clip": ("CLIP", ("tokenize", "encode_from_tokens_scheduled", "cond_stage_model")),
        "clip_vision": ("CLIP_VISION", ("encode_image", "model")),
        "model": ("MODEL", ("model", "clone", "get_key_patches")),
        "vae": ("VAE", ("encode", "latent_channels")),
    }
)


def check_projection(projection: object) -> Projection:
    """The payload of a PROJECTION socket, or an ImageToPromptError."""
    if not isinstance(projection, Projection):
        raise ImageToPromptError(
            "a PROJECTION", type(projection).__name__, "Connect LoadProjection (socket projection)."
        )
    return projection


def _is(value: object, kind: type) -> bool:
    """isinstance, for the number classes of `numbers`, which type checkers cannot compare."""
    return isinstance(value, kind)


def check_number(value: Any, name: str) -> float:
    """A finite number of at most a million; values on links escape the widget's own range.

    As for values on widgets, which the host converts, true is 1 and false is 0.
    """
    # Compared as it came: float() of a whole number can overflow.
    if not _is(value, Real) or not -_LARGEST <= value <= _LARGEST:
        expected = f"a finite {name}, at most {_LARGEST:.0f} away from 0"
        raise ImageToPromptError(expected, quoted(value), f"Correct {name}.")
    return float(value)


def check_share(value: Any, name: str) -> float:
    """A number from 0 to 1; values on links escape the widget's own range."""
    number = check_number(value, name)
    if not 0 <= number <= 1:
        raise ImageToPromptError(f"{name} from 0 to 1", f"{number:g}", f"Correct {name}.")
    return number


def check_finite(prompts: Sequence[Tensor], text_weight: float, strength: float) -> None:
    """Raise ImageToPromptError unless prompts made with these two numbers are finite."""
    if not all(torch.isfinite(prompt).all() for prompt in prompts):
        raise ImageToPromptError(
            "a conditioning of finite numbers",
            f"infinite or NaN ones for text_weight {text_weight} and strength {strength}",
            "Lower text_weight and strength, and check the text encoder for NaN (socket clip).",
        )


def check_count(value: Any, name: str, lowest: int) -> int:
    """A whole number from `lowest` to a million; true is 1 and false is 0."""
    if not _is(value, Integral) or not lowest <= value <= _LARGEST:
        expected = f"a whole {name} >= {lowest}, at most {_LARGEST:.0f}"
        raise ImageToPromptError(expected, quoted(value), f"Correct {name}.")
    return int(value)


def check_seed(value: Any) -> int:
    """A whole number of at most 64 bits, signed or not."""
    if not _is(value, Integral) or not -(2**63) <= value < 2**64:
        raise ImageToPromptError("a whole seed of 64 bits", quoted(value), "Correct seed.")
    return int(value)


def check_flag(value: Any, name: str) -> bool:
    """Yes or no, as a boolean or as 0 and 1."""
    if not isinstance(value, Integral) or value not in (0, 1):
        raise ImageToPromptError(f"{name} as true or false", quoted(value), f"Correct {name}.")
    return bool(value)


def check_text(value: object, name: str) -> str:
    """A text that can be written: without half of a character, as in broken file names."""
    if not isinstance(value, str):
        raise ImageToPromptError(f"{name} as a text", quoted(value), f"Correct {name}.")
    if any("\ud800" <= char <= "\udfff" for char in value):
        got = f"half a character in {quoted(value)}"
        raise ImageToPromptError(f"{name} as a text of whole characters", got, f"Correct {name}.")
    return value


def check_choice(value: object, options: Iterable[str], name: str) -> str:
    """One of a combo's options; ComfyUI before 0.33 does not check them."""
    allowed = list(options)
    if not isinstance(value, str) or value not in allowed:
        choices = ", ".join(repr(option) for option in allowed)
        raise ImageToPromptError(f"{name} among {choices}", quoted(value), f"Correct {name}.")
    return value


def check_conditioning(value: Any, socket: str) -> None:
    """Raise ImageToPromptError unless it is CONDITIONING of at least one prompt (B, L, D)."""
    fit = isinstance(value, list) and value and all(_is_entry(entry) for entry in value)
    if not fit:
        got = f"{len(value)} entries of another kind" if isinstance(value, list) else _kind(value)
        raise ImageToPromptError(
            "CONDITIONING of finite prompts (B, L, D)",
            got,
            f"Correct what is connected to socket {socket}.",
        )


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, (list, tuple)) or len(entry) != 2 or not isinstance(entry[1], dict):
        return False
    prompt = entry[0]
    plain = isinstance(prompt, Tensor) and is_plain(prompt) and prompt.ndim == 3
    return plain and prompt.numel() > 0 and bool(torch.isfinite(prompt).all())


def _kind(value: object) -> str:
    return type(value).__name__


def check_socket(value: object, socket: str) -> None:
    """Raise ImageToPromptError where a model socket got what is no such model at all.

    None passes: what is missing is said by the check of the model itself.
    """
    kind, names = _MODELS[socket]
    if value is not None and not all(hasattr(value, name) for name in names):
        raise ImageToPromptError(
            f"a {kind}", type(value).__name__, f"Correct what is connected to socket {socket}."
        )


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
            f"{reason} for {quoted(prefix)}",
            "Correct filename_prefix, or see to its folder and disk.",
        ) from error


def rgb(image: Any, crop: str, socket: str = "image") -> Tensor:
    """Pictures as (B, H, W, 3) float32 from an IMAGE of 1, 3 or 4 channels.

    Grey is repeated, an alpha channel is dropped, as core nodes do. Pixels somewhat outside 0 to 1,
    as sharp scaling gives, are left to the host, which cuts them. Raises ImageToPromptError for
    another shape or kind of tensor, no pictures, whole or complex numbers, NaN, pixels on another
    scale, or sides too unequal to centre-crop.
    """
    shape: Sequence[int] = ()
    if isinstance(image, Tensor) and not image.is_nested:
        shape = image.shape
    if len(shape) != 4 or 0 in shape or shape[-1] not in (1, 3, 4):
        expected = "a picture or batch of shape (B, H, W, 1, 3 or 4)"
        _refuse_image(expected, f"{tuple(shape)}" if len(shape) else _named(image), socket)
    if not is_plain(image):
        _refuse_image("pixels as plain floating-point numbers", _named(image), socket)
    pictures = image.float()
    if not torch.isfinite(pictures).all():
        _refuse_image("finite pixels", "NaN or infinite ones", socket)
    if pictures.abs().max() > _BRIGHTEST:
        _refuse_image("pixels from 0 to 1", f"one of {float(pictures.abs().max()):.4g}", socket)
    height, width = shape[1:3]
    if crop == "center" and max(height, width) > _MAX_ASPECT * min(height, width):
        sides = f"sides within 1:{_MAX_ASPECT} for crop 'center'"
        _refuse_image(sides, f"{width}x{height}", socket)
    return pictures.expand(-1, -1, -1, 3) if shape[-1] == 1 else pictures[..., :3]


def _named(image: object) -> str:
    return described(image) if isinstance(image, Tensor) else type(image).__name__


def _refuse_image(expected: str, got: str, socket: str) -> None:
    raise ImageToPromptError(expected, got, f"Correct what is connected to socket {socket}.")


def parse_weights(text: str) -> list[float] | None:
    """Numbers from '1, 0.5, 2'; None if there are none. Raises ImageToPromptError."""
    words = re.split(r"[\s,;]+", check_text(text, "image_weights").strip())
    if words == [""]:
        return None
    try:
        return [float(word) for word in words]
    except ValueError as error:
        raise ImageToPromptError(
            "numbers separated by commas, one per image", quoted(text), "Correct image_weights."
        ) from error
