"""Style, format and types of the source, as `make lint` and `make test` check them.

Types are checked in projection/, nodes/ and workflows/ (mypy, settings in pyproject.toml).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TYPES = ROOT / "build" / "types"  # holds the checkout under its package's name
PACKAGE = "image_to_prompt"
TYPED = ("projection", "nodes", "workflows")


def main() -> int:
    ruff = [sys.executable, "-m", "ruff"]
    failed = [
        subprocess.run(command, cwd=ROOT).returncode
        for command in ([*ruff, "check", "."], [*ruff, "format", "--check", "--quiet", "."])
    ]
    return int(any([*failed, types()]))


def types() -> int:
    """Mypy's exit code; its findings are printed, with paths from the root on."""
    link = TYPES / PACKAGE
    TYPES.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(ROOT, target_is_directory=True)
    options = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(TYPES / "cache")]
    packages = [part for room in TYPED for part in ("-p", f"{PACKAGE}.{room}")]
    command = [sys.executable, "-m", "mypy", *options, *packages]
    done = subprocess.run(command, cwd=TYPES, stdout=subprocess.PIPE, text=True)
    sys.stdout.write(done.stdout.replace(f"{PACKAGE}/", ""))
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
