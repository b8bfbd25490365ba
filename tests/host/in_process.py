"""Makes a ComfyUI importable in this process, which must run in the host's own Python."""

from __future__ import annotations

import sys
from pathlib import Path


def make_importable(host: Path) -> None:
    """Put the host's folder first on sys.path; its command line sees no arguments of ours."""
    sys.path.insert(0, str(host))
    sys.argv = sys.argv[:1]
