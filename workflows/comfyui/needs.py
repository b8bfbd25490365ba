"""What a ComfyUI needs to start, read from its own source: versions differ, requirements lie.

0.3.64 imports `requests` without listing it, for example; later versions list packages that
earlier ones have never heard of.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

# Imported inside of a `try`, and yet the host ends without it.
_PAGE = "comfyui_frontend_package"


def needs_of(folder: Path) -> tuple[str, ...]:
    """Modules from outside of this ComfyUI that starting its main.py imports, sorted by name.

    Followed are imports at the top of a module, through all modules of the host. What lies in a
    function, an `if` or a `try` is not needed to start, and packs of nodes may fail by themselves.
    """
    seen: set[Path] = set()
    waiting = [folder / "main.py"]
    found = set()
    while waiting:
        file = waiting.pop()
        if file in seen or not file.is_file():
            continue
        seen.add(file)
        for name in _imports(file, folder):
            inside = _files_of(name, folder)
            waiting += inside
            if not inside:
                found.add(name.partition(".")[0])
    requirements = folder / "requirements.txt"
    if requirements.is_file() and _PAGE.replace("_", "-") in requirements.read_text(
        encoding="utf-8", errors="replace"
    ):
        found.add(_PAGE)
    return tuple(sorted(found - set(sys.stdlib_module_names)))


def _imports(file: Path, folder: Path) -> Iterator[str]:
    """Full names of the modules that the statements at the top of a file import."""
    try:
        body = ast.parse(file.read_bytes()).body
    except (SyntaxError, ValueError):  # written for a Python newer than this one
        return
    package = file.relative_to(folder).parent.parts
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            start = ".".join([*above, *([node.module] if node.module else [])])
            if start:
                yield start
            if start and _files_of(start, folder):  # from a package of the host: modules too
                yield from (f"{start}.{alias.name}" for alias in node.names)


def _files_of(name: str, folder: Path) -> list[Path]:
    """The host's files that importing a module runs; none if it is not the host's."""
    parts = name.split(".")
    if not ((folder / parts[0]).is_dir() or (folder / f"{parts[0]}.py").is_file()):
        return []
    files = [folder.joinpath(*parts[:n], "__init__.py") for n in range(1, len(parts) + 1)]
    return [*files, folder.joinpath(*parts).with_suffix(".py")]
