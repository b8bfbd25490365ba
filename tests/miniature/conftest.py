"""Makes the miniature importable as `miniature`."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = str(Path(__file__).resolve().parents[1])
if TESTS not in sys.path:
    sys.path.append(TESTS)  # last, so that no folder here can hide a module of the host
