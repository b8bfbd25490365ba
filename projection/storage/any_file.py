"""Any file that gives a projection: one saved earlier, or a full CLIP file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ..closed_form.sanity import FILE_ADVICE
from ..errors import ImageToPromptError
from ..projector import Projection
from .clip_file import PROJECTION_KEYS, ClipProjections, read_clip_projections
from .projection_file import is_projection, load_projection


def load_file(path: str | Path, method: str = "pseudo-inverse", cutoff: float = 0.0) -> Projection:
    """The projection of a file: loaded if it was saved, inverted if it is a full CLIP file.

    method, cutoff: for a CLIP file, see `Projection.from_text_projection`; a saved projection
    keeps its own. Raises ImageToPromptError for any other file.
    """
    if is_projection(_metadata(path)):
        return load_projection(path)
    clip = read_clip_projections(path)
    return Projection.from_text_projection(clip.text, clip.visual, method, cutoff)


def load_weights(path: str | Path) -> ClipProjections | None:
    """W_t and W_v of a full CLIP file, None of a saved projection.

    Raises ImageToPromptError for any other file.
    """
    return None if is_projection(_metadata(path)) else read_clip_projections(path)


def content_hash(path: str | Path) -> str:
    """SHA-256 of what `load_file` would use of a file, not of the gigabytes beside it.

    Raises ImageToPromptError if the file cannot be read.
    """
    metadata = _metadata(path)
    digest = hashlib.sha256(repr(sorted(metadata.items())).encode())
    with safe_open(path, "pt") as file:
        for key in sorted(file.keys()):
            if is_projection(metadata) or key in PROJECTION_KEYS:
                tensor = file.get_tensor(key).contiguous()
                digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _metadata(path: str | Path) -> dict[str, str]:
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise ImageToPromptError(
            "a file in safetensors format", f"{Path(path).name}: {error}", FILE_ADVICE, "clip file"
        ) from error
