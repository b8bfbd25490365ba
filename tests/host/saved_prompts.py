"""Save Prompt as a test calls it."""

from __future__ import annotations

import importlib
from typing import Any


def save_prompt(host: Any, projection: Any, conditioning: list, prefix: str) -> str:
    """The name of the new file in the list of Load Prompt."""
    import folder_paths

    files = importlib.import_module("image_to_prompt.nodes.host.files")
    before = set(files.names_in("prompts"))
    host.classes["ImageToPromptSavePrompt"].execute(conditioning, projection, prefix)
    folder_paths.cache_helper.clear()
    folder_paths.filename_list_cache.clear()
    (name,) = set(files.names_in("prompts")) - before
    return name
