"""The source's files, for the tests that read them."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SKIPPED = {".git", ".venv", "build", "dist", "__pycache__", ".ruff_cache", ".mypy_cache"}


def tracked() -> list[Path]:
    """Files under version control, or all that would be where there is none."""
    try:
        done = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        files = (p for p in ROOT.rglob("*") if not SKIPPED & set(p.relative_to(ROOT).parts))
    else:
        files = (ROOT / name for name in done.stdout.split("\0") if name)
    return [path for path in files if path.is_file()]


def sources(*folders: str) -> list[Path]:
    """Python files below these folders, at least one in each."""
    found = {folder: sorted((ROOT / folder).rglob("*.py")) for folder in folders}
    assert all(found.values()), found
    return [path for paths in found.values() for path in paths]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()
