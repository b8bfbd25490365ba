"""Makes the checkout importable as `image_to_prompt`, whatever its folder is called."""

from __future__ import annotations

import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).resolve().parent.parent / "workflows" / "checkout.py"))
