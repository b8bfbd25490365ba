"""Makes what users open anew: python workflows/authoring build|thumbnails [ARGUMENT ...]"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

TOOLS = ("build", "thumbnails")


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TOOLS:
        sys.exit(__doc__)
    name = sys.argv.pop(1)
    runpy.run_path(str(Path(__file__).resolve().parents[1] / "checkout.py"))
    module = f"image_to_prompt.workflows.authoring.{name}"
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
