"""Finds ComfyUI on this machine, and a Python that can run it.

Looked for, in this order:
    folders   COMFYUI_PATH (several with the system's path separator) and nothing else if it is
              set; else the checkout above a `custom_nodes` that this pack lies in, then ~/comfy/*.
    Python    COMFYUI_PYTHON, the folder's .venv or venv, a portable installation's
              python_embeded, a .venv beside it, python3 on PATH; the first that imports what
              this ComfyUI imports when it starts (see `needs`).
Standard library only: any Python can ask, by `python workflows/run.py --hosts`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from .needs import needs_of

USUAL_PLACES = ("~/comfy/ComfyUI", "~/comfy/ComfyUI-floor")
PACK = Path(__file__).resolve().parents[2]
_PROBE_SECONDS = 180


class HostError(RuntimeError):
    """No ComfyUI, or none that can be run; the message says what was tried."""


@dataclass(frozen=True)
class Host:
    """A ComfyUI checkout and the Python that runs it."""

    folder: Path
    python: Path

    @property
    def version(self) -> str:
        """As ComfyUI states it, or 'unknown'."""
        file = self.folder / "comfyui_version.py"
        found = re.search(r'"([^"]+)"', file.read_text()) if file.is_file() else None
        return found.group(1) if found else "unknown"

    def __str__(self) -> str:
        return f"ComfyUI {self.version} in {self.folder}"


@dataclass
class Search:
    """Hosts that can be run, and why others cannot."""

    hosts: list[Host] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def search() -> Search:
    """Every ComfyUI of this machine, in the order of the module's docstring."""
    result = Search()
    for found in _each():
        if isinstance(found, Host):
            result.hosts.append(found)
        else:
            result.problems.append(found)
    if not result.hosts and not result.problems:
        result.problems.append(_nowhere())
    return result


def first() -> Host:
    """The first host that can be run; those behind it are not tried, since a try takes seconds.

    Raises HostError, saying what was tried.
    """
    problems = []
    for found in _each():
        if isinstance(found, Host):
            return found
        problems.append(found)
    raise HostError("\n".join(problems or [_nowhere()]))


def _each() -> Iterator[Host | str]:
    """Every candidate as a host, or why it cannot be run; nothing for a guess that is wrong."""
    for folder in _candidates():
        try:
            yield host_in(folder)
        except HostError as error:
            # The usual places are only guesses: none of them missing is a problem.
            if os.environ.get("COMFYUI_PATH") or is_host(folder):
                yield str(error)


def _nowhere() -> str:
    tried = ", ".join(str(folder) for folder in _candidates())
    return f"No ComfyUI in {tried}. Set COMFYUI_PATH to the folder that holds main.py and comfy/."


def host_in(folder: Path) -> Host:
    """The host in this folder. Raises HostError if there is none or no Python can run it."""
    folder = folder.expanduser().resolve()
    if not is_host(folder):
        raise HostError(f"{folder} is no ComfyUI: it must hold main.py and comfy/.")
    tried, needed = [], needs_of(folder)
    for python in _interpreters(folder):
        problem = _why_not(python, needed)
        if problem is None:
            return Host(folder, python)
        tried.append(f"  {python}: {problem}")
    raise HostError(
        f"No Python can run the ComfyUI in {folder}. Tried:\n" + "\n".join(tried) + "\n"
        "Install its requirements.txt in one of them, or set COMFYUI_PYTHON."
    )


def is_host(folder: Path) -> bool:
    """Whether this folder is a ComfyUI checkout."""
    return (folder / "main.py").is_file() and (folder / "comfy").is_dir()


def _candidates() -> list[Path]:
    stated = os.environ.get("COMFYUI_PATH")
    if stated:
        folders = [Path(part) for part in stated.split(os.pathsep) if part.strip()]
    else:
        # The unresolved path too: packs are often linked into custom_nodes.
        packs = dict.fromkeys([PACK, Path(__file__).absolute().parents[2]])
        inside = [pack.parent.parent for pack in packs if pack.parent.name == "custom_nodes"]
        folders = inside + [Path(place) for place in USUAL_PLACES]
    return list(dict.fromkeys(folder.expanduser().resolve() for folder in folders))


def _interpreters(folder: Path) -> list[Path]:
    """Existing Pythons worth a try. Not resolved: a venv's python is a link, and must stay one."""
    stated = os.environ.get("COMFYUI_PYTHON")
    environments = [folder / ".venv", folder / "venv", folder.parent / ".venv"]
    found = [_python_of(place) for place in environments]
    found.insert(2, folder.parent / "python_embeded" / "python.exe")
    on_path = shutil.which("python3") or shutil.which("python") or sys.executable
    existing = [path for path in [*found, Path(on_path)] if path.exists()]
    # A stated one is tried even if missing, so that the answer names it.
    return list(dict.fromkeys([Path(stated).expanduser(), *existing] if stated else existing))


def _python_of(environment: Path) -> Path:
    windows = environment / "Scripts" / "python.exe"
    return windows if windows.exists() else environment / "bin" / "python"


@cache
def _why_not(python: Path, needed: tuple[str, ...]) -> str | None:
    """None if this Python imports all of these modules, else the last line of its complaint."""
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    try:
        probe = subprocess.run(
            [str(python), "-c", code, *needed],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PROBE_SECONDS,
            cwd=Path(python).anchor,  # not here: folder names of ours must not shadow modules
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if probe.returncode == 0:
        return None
    return (probe.stderr.strip().splitlines() or [f"exit code {probe.returncode}"])[-1]
