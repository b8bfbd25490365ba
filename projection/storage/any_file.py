"""Any file that gives a projection: one saved earlier, or a full CLIP file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from ..errors import ImageToPromptError
from ..projector import Projection
from .clip_file import (
    ClipProjections,
    holds_text_projection,
    projection_keys,
    read_clip_projections,
)
from .projection_file import is_projection, load_projection
from .prompt_file import is_prompt
from .tensor_file import TensorFile


def load_file(path: str | Path, method: str = "pseudo-inverse", cutoff: float = 0.0) -> Projection:
    """The projection of a file: loaded if it was saved, inverted if it is a full CLIP file.

    method, cutoff: for a CLIP file, see `Projection.from_text_projection`; a saved projection
    keeps its own. Raises ImageToPromptError for any other file.
    """
    if is_projection(TensorFile.open(path).metadata):
        return load_projection(path)
    clip = read_clip_projections(path)
    return Projection.from_text_projection(clip.text, clip.visual, method, cutoff)


def load_weights(path: str | Path) -> ClipProjections | None:
    """W_t and W_v of a full CLIP file, None of a saved projection.

    Raises ImageToPromptError for any other file.
    """
    return None if is_projection(TensorFile.open(path).metadata) else read_clip_projections(path)


def promises_projection(path: str | Path) -> bool:
    """Whether `load_file` may give a projection, by the file's header alone."""
    try:
        file = TensorFile.open(path)
    except ImageToPromptError:
        return False
    return is_projection(file.metadata) or holds_text_projection(file)


def content_hash(path: str | Path) -> str:
    """SHA-256 of what `load_file` or `load_prompt` would use of a file, without what is beside it.

    Raises ImageToPromptError if the file cannot be read.
    """
    file = TensorFile.open(path)
    digest = hashlib.sha256(repr(sorted(file.metadata.items())).encode("utf-8", "replace"))
    saved = is_projection(file.metadata) or is_prompt(file.metadata)
    tensors = file.read_all() if saved else file.read(projection_keys(file))
    for key, tensor in sorted(tensors.items()):
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode("utf-8", "replace"))
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
