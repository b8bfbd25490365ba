"""Makes the checkout importable as `image_to_prompt`, whatever its folder is called.

The root must not be put on sys.path: the host owns the name `nodes`.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "image_to_prompt"


def _register_checkout() -> None:
    spec = importlib.util.spec_from_file_location(
        PACKAGE, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = module
    spec.loader.exec_module(module)


_register_checkout()

if str(ROOT / "tests") not in sys.path:
    # For `miniature`. Last, so that no folder here can hide a module of the host.
    sys.path.append(str(ROOT / "tests"))
