"""What the nodes call of ComfyUI. Read in 0.3.64 and 0.33.0; what differs is said where it matters.

Training's own parts have modules of their own: `unet`, `vision`, `vae`, `progress`, `patches`.
"""

from __future__ import annotations

from typing import Any

from comfy_api.latest import ComfyExtension, io, ui

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
    "schema",
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
