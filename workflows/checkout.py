"""Imported first by a script of this folder: makes the checkout importable as `image_to_prompt`.

So the scripts need no installation, whatever the checkout is called. Its folder is not put on
sys.path: a host beside us owns the name `nodes`.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def _register(name: str = "image_to_prompt") -> None:
    spec = importlib.util.spec_from_file_location(
        name, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


_register()
