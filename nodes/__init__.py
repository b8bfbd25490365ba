"""The nodes: thin declarations over `projection`. ComfyUI is needed once `extension` is called."""

from __future__ import annotations

from typing import Any


def extension() -> Any:
    """What ComfyUI loads: makes the folder kind known and lists the nodes."""
    from . import apply, embed, fit, load_save, refine
    from .concepts import mix
    from .host import api, files
    from .prompts import load_save as prompts
    from .regions import blocks, layout

    files.register_folders()
    modules = (load_save, embed, layout, blocks, refine, fit, apply, mix, prompts)
    return api.extension_of([node for module in modules for node in module.NODES])
