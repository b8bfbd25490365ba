"""The text projection out of a CLIP file, without reading the rest of it.

A CLIP ViT-L/14 file has 1.7 GB; W_t and W_v together are 5 MB of it. Safetensors files are
mapped, so only the pages of these two are ever read.

Orientation: transformers stores both as `Linear.weight`, (out, in). OpenAI's and OpenCLIP's own
names are plain matrices used as x @ P, so they are (in, out) and are transposed here. A square
matrix does not show which it is; only the key's name tells.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..closed_form.sanity import DTYPES, FILE_ADVICE, check_entries
from ..errors import ImageToPromptError

_LINEAR_TEXT = ("text_projection.weight", "text.text_projection.weight")
_MATRIX_TEXT = ("text_projection", "text.text_projection")
_LINEAR_VISION = ("visual_projection.weight",)
_MATRIX_VISION = ("visual.proj",)
PROJECTION_KEYS = (*_LINEAR_TEXT, *_MATRIX_TEXT, *_LINEAR_VISION, *_MATRIX_VISION)


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
    name = Path(path).name
    try:
        with safe_open(path, "pt") as file:
            keys = set(file.keys())
            text = _first(file, keys, _LINEAR_TEXT, _MATRIX_TEXT)
            visual = _first(file, keys, _LINEAR_VISION, _MATRIX_VISION)
    except (SafetensorError, OSError) as error:
        raise ImageToPromptError(
            "a CLIP file in safetensors format", f"{name}: {error}", FILE_ADVICE, "clip file"
        ) from error
    if text is None:
        raise ImageToPromptError(
            "a CLIP file with a text projection", f"{name}, {_kind(keys)}", FILE_ADVICE, "clip file"
        )
    for weight, what in ((text, "text"), (visual, "visual")):
        if weight is not None:
            _check_weight(weight, f"{what} projection of {name}")
    _check_pair(text, visual, name)
    return ClipProjections(text.float(), None if visual is None else visual.float())


def _first(file: safe_open, keys: set[str], linear: tuple, matrix: tuple) -> Tensor | None:
    """The first tensor present, (out, in), copied out of the mapped file."""
    for key in linear + matrix:
        if key in keys:
            tensor = file.get_tensor(key)
            return (tensor.T if key in matrix and tensor.ndim == 2 else tensor).contiguous().clone()
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
