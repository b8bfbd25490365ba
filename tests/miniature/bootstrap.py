"""Makes the project importable as `image_to_prompt` from any checkout, without installing it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAME = "image_to_prompt"


def register() -> None:
    """Load the repository's root as the package `image_to_prompt`, once."""
    if NAME in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(
        NAME, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
