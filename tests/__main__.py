"""Runs a tool of the tests: python tests NAME [ARGUMENT ...]

NAME is a module below tests/, such as run_all, bench or miniature.experiments.evaluate.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__)
    name = sys.argv.pop(1)
    runpy.run_path(str(ROOT / "workflows" / "checkout.py"))
    runpy.run_module(f"image_to_prompt.tests.{name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
