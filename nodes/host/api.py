"""What the nodes call of ComfyUI. Read in 0.3.64 and 0.33.0; what differs is said where it matters.

Training's own parts have modules of their own: `unet`, `vision`, `vae`, `progress`, `patches`.
"""

from __future__ import annotations

import os
from typing import Any

import folder_paths
from comfy_api.latest import ComfyExtension, io, ui

from ...projection import ImageToPromptError
from .files import (
    PROJECTIONS,
    SUFFIX,
    paths_of,
    projection_files,
    register_projections_folder,
    searched_folders,
)
from .text import EncodedText, check_clip, encode_text
from .vision import check_clip_vision

__all__ = [
    "ComfyExtension",
    "EncodedText",
    "check_clip",
    "check_clip_vision",
    "encode_text",
    "extension_of",
    "io",
    "new_lora_path",
    "new_projection_path",
    "paths_of",
    "projection_files",
    "register_projections_folder",
    "schema",
    "searched_folders",
    "ui",
]


def extension_of(nodes: list[type[io.ComfyNode]]) -> ComfyExtension:
    """A V3 extension that lists these nodes."""

    class Extension(ComfyExtension):
        async def get_node_list(self) -> list[type[io.ComfyNode]]:
            return nodes

    return Extension()


def schema(search_aliases: list[str], **fields: Any) -> io.Schema:
    """A node's schema, with the words it is also found by where the host knows such (0.33)."""
    if "search_aliases" in io.Schema.__dataclass_fields__:
        fields["search_aliases"] = search_aliases
    return io.Schema(**fields)


# --- new files -------------------------------------------------------------------------------


def new_projection_path(prefix: str) -> str:
    """A free path in the projections folder, numbered as core's save nodes number theirs.

    Raises ImageToPromptError for a prefix that is empty or leads out of the folder.
    """
    return _new_path(PROJECTIONS, prefix)


def new_lora_path(prefix: str) -> str:
    """As `new_projection_path`, in the folder that core's LoRA loader lists."""
    return _new_path("loras", prefix)


def _new_path(kind: str, prefix: str) -> str:
    if "\0" in prefix:  # the file system's own functions would not even compare it
        raise _bad_prefix(kind, prefix)
    root = folder_paths.get_folder_paths(kind)[0]
    target = os.path.realpath(os.path.join(root, prefix))
    inside = os.path.commonpath([os.path.realpath(root), target]) == os.path.realpath(root)
    name = os.path.basename(os.path.normpath(prefix))
    if not inside or not prefix.strip() or name in ("", ".", ".."):
        raise _bad_prefix(kind, prefix)
    os.makedirs(root, exist_ok=True)
    folder, name, counter, _, _ = folder_paths.get_save_image_path(prefix, root)
    return os.path.join(folder, f"{name}_{counter:05}_{SUFFIX}")


def _bad_prefix(kind: str, prefix: str) -> ImageToPromptError:
    return ImageToPromptError(
        f"a file name inside the {kind} folder", repr(prefix), "Correct filename_prefix."
    )
