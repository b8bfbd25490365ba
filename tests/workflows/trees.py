"""What lies in a folder, so that a test can say that nothing of it was touched."""

from __future__ import annotations

import os
from pathlib import Path


def snapshot(folder: Path) -> dict[str, object]:
    """Every path below a folder: the target of a link, the bytes of a file, None for a folder."""
    found: dict[str, object] = {}
    for here, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(here, name)
            content = None if path.is_dir() else path.read_bytes() if path.is_file() else "special"
            key = path.relative_to(folder).as_posix()
            found[key] = f"-> {os.readlink(path)}" if path.is_symlink() else content
    return found


def untouched(before: dict[str, object], folder: Path) -> bool:
    """Whether all that was there is there, unchanged; more may have come."""
    return before.items() <= snapshot(folder).items()
