"""The text projection out of a CLIP file, without reading the rest of it.

A CLIP ViT-L/14 file has 1.7 GB; W_t and W_v together are 5 MB of it, and all that is read.

Orientation: transformers stores both as `Linear.weight`, (out, in). OpenAI's and OpenCLIP's own
names are plain matrices used as x @ P, so they are (in, out) and are transposed here. A square
matrix does not show which it is; only the key's name tells.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..closed_form.sanity import DTYPES, FILE_ADVICE, check_entries
from ..errors import ImageToPromptError
from .tensor_file import TensorFile

_LINEAR_TEXT = ("text_projection.weight", "text.text_projection.weight")
_MATRIX_TEXT = ("text_projection", "text.text_projection")
_LINEAR_VISION = ("visual_projection.weight",)
_MATRIX_VISION = ("visual.proj",)
_TEXT, _VISION = (*_LINEAR_TEXT, *_MATRIX_TEXT), (*_LINEAR_VISION, *_MATRIX_VISION)
# Of a projection; the largest published one, ViT-bigG/14's W_v, has 1280 x 1664.
_MAX_NUMBERS = 2**22


@dataclass(frozen=True, eq=False)
class ClipProjections:
    """W_t (J, D) and, where the file has it, W_v (J, V); float32, as `torch.nn.Linear.weight`."""

    text: Tensor
    visual: Tensor | None


def read_clip_projections(path: str | Path) -> ClipProjections:
    """Read W_t and W_v from a CLIP file in safetensors format; see the module for key names.

    Raises ImageToPromptError if the file is unreadable, holds no text projection (as Stable
    Diffusion 1.x checkpoints and vision-only files do not), or one that cannot be right.
    """
    file, name = TensorFile.open(path), Path(path).name
    found = file.read(projection_keys(file))
    text, visual = _first(found, _TEXT), _first(found, _VISION)
    if text is None:
        got = f"{name}, {_kind(set(file.entries))}"
        raise ImageToPromptError(
            "a CLIP file with a text projection", got, FILE_ADVICE, "clip file"
        )
    for weight, what in ((text, "text"), (visual, "visual")):
        if weight is not None:
            _check_weight(weight, f"{what} projection of {name}")
    _check_pair(text, visual, name)
    return ClipProjections(text.float(), None if visual is None else visual.float())


def projection_keys(file: TensorFile) -> list[str]:
    """The keys of W_t and W_v in the file, where it has them.

    Raises ImageToPromptError for one that is too large to be a projection.
    """
    keys = [next((key for key in known if key in file.entries), None) for known in (_TEXT, _VISION)]
    for key in filter(None, keys):
        shape = file.entries[key].shape
        if math.prod(shape) > _MAX_NUMBERS:
            raise ImageToPromptError(
                f"a projection of at most {_MAX_NUMBERS} numbers",
                f"{shape} as {key} of {file.path.name}",
                FILE_ADVICE,
                "clip file",
            )
    return list(filter(None, keys))


def holds_text_projection(file: TensorFile) -> bool:
    """Whether the file has a tensor under one of the names of a text projection."""
    return any(key in file.entries for key in _TEXT)


def _first(found: Mapping[str, Tensor], keys: tuple[str, ...]) -> Tensor | None:
    """The tensor of the first of these keys that was found, (out, in)."""
    for key in keys:
        if key in found:
            lies = key in (*_MATRIX_TEXT, *_MATRIX_VISION) and found[key].ndim == 2
            return found[key].T.contiguous() if lies else found[key]
    return None


def _check_weight(weight: Tensor, where: str) -> None:
    if weight.dtype not in DTYPES:
        raise ImageToPromptError(
            "a text projection of float16, bfloat16 or float32 numbers",
            f"{weight.dtype} in the {where}",
            "Use the unquantised CLIP file.",
        )
    check_entries(weight, f"the {where}")


def _check_pair(text: Tensor, visual: Tensor | None, name: str) -> None:
    if visual is not None and visual.shape[0] != text.shape[0]:
        raise ImageToPromptError(
            f"text and visual projections into one joint space ({text.shape[0]} wide)",
            f"{name}, whose visual projection gives {visual.shape[0]}",
            FILE_ADVICE,
            "clip file",
        )


def _kind(keys: set[str]) -> str:
    """What a file without a text projection seems to be, in words."""
    if any(key.startswith("model.diffusion_model.") for key in keys):
        return "a Stable Diffusion checkpoint, which does not contain one"
    if any(key.startswith(("vision_model.", "visual.")) for key in keys):
        return "a vision-only file"
    if any("text_model." in key for key in keys):
        return "a text encoder saved without its projection"
    return f"which holds none of {', '.join(_LINEAR_TEXT[:1] + _MATRIX_TEXT[:1])}"
