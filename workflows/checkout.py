"""Makes the checkout importable as `image_to_prompt`, whatever its folder is called.

The scripts of this folder import it first; tests and tools run it by its path. So nothing needs an
installation. The checkout's folder is not put on sys.path: a host beside us owns the name `nodes`.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "image_to_prompt"


def register() -> None:
    """Load the repository's root as the package `image_to_prompt`, once."""
    if PACKAGE in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(
        PACKAGE, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{ROOT} cannot be imported as a package")
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = module
    spec.loader.exec_module(module)


register()
