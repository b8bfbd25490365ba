"""Links and copies in a host's base folder, of which only our own are ever replaced.

A record in the base folder names what this program made, with what it was when it was made. What
is not in the record, or was changed since, is somebody else's: it stays, and a HostError says so.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

from .hosts import HostError

RECORD = ".image-to-prompt.json"
_NOT_COPIED = shutil.ignore_patterns(".*", "build", "dist", "__pycache__")


def link(base: Path, path: Path, target: Path) -> None:
    """Make `path`, a place below `base`, lead to an existing file or folder.

    Nothing is done where it leads there already. Where links are not allowed it becomes a copy.
    Raises HostError if something that this program did not make is there.
    """
    target = target.resolve()
    if _leads_to(path, target):
        return
    made = read(base)
    if target.is_dir() and path.is_dir() and not path.is_symlink():
        _copy_folder(base, path, target, made)
        return
    _make_way(base, path, made)
    try:
        path.symlink_to(target, target_is_directory=target.is_dir())
    except OSError as error:
        if isinstance(error, FileExistsError):
            raise _foreign(path) from error
        # Windows without the privilege to link
        if target.is_dir():
            _copy_folder(base, path, target, made)
        else:
            _copy(base, path, target, made)
        return
    made[_key(base, path)] = os.readlink(path)
    _write(base, made)


def own_file(base: Path, name: str) -> Path:
    """A file of ours in `base`, new or from an earlier run: `name`, or the next free name."""
    made = read(base)
    stem, ending = Path(name).stem, Path(name).suffix
    number = 1
    while True:
        path = base / (name if number == 1 else f"{stem}-{number}{ending}")
        if os.path.lexists(path) and made.get(path.name) == _identity(path):
            return path
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            number += 1
            continue
        made[path.name] = _identity(path)
        _write(base, made)
        return path


def read(base: Path) -> dict[str, str]:
    """What this program made below `base`: relative path -> target of a link, or state of a copy.

    Raises HostError if the record's file holds anything else.
    """
    record = base / RECORD
    if not os.path.lexists(record):
        return {}
    try:
        content = None if record.is_symlink() else json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        content = None
    made = content.get("made") if isinstance(content, dict) else None
    if not isinstance(made, dict) or not all(isinstance(v, str) for v in made.values()):
        raise HostError(f"{record} is no record of this program. Move it elsewhere.")
    return made


def _write(base: Path, made: dict[str, str]) -> None:
    read(base)  # what is no record of ours is not replaced
    number, fresh = tempfile.mkstemp(prefix=RECORD, dir=base)
    with open(number, "w", encoding="utf-8") as file:
        json.dump({"made": made}, file, indent=1)
    os.replace(fresh, base / RECORD)


def _leads_to(path: Path, target: Path) -> bool:
    try:
        return path.samefile(target)
    except OSError:  # nothing there, or links in a circle
        return False


def _make_way(base: Path, path: Path, made: dict[str, str]) -> None:
    """Remove a link or a copied file of ours. Raises HostError for anything else."""
    if not os.path.lexists(path):
        return
    if made.get(_key(base, path)) != _state(path):
        raise _foreign(path)
    path.unlink()


def _copy(base: Path, path: Path, target: Path, made: dict[str, str]) -> None:
    """Copy a file to a place where nothing is."""
    try:
        with target.open("rb") as source, path.open("xb") as file:
            shutil.copyfileobj(source, file)
    except FileExistsError as error:
        raise _foreign(path) from error
    made[_key(base, path)] = _state(path)
    _write(base, made)


def _copy_folder(base: Path, path: Path, target: Path, made: dict[str, str]) -> None:
    """Bring a copied folder of ours up to date, file by file."""
    if path.is_dir() and f"{_key(base, path)}/" not in made:
        raise _foreign(path)
    path.mkdir(exist_ok=True)
    made[f"{_key(base, path)}/"] = "ours"
    _write(base, made)
    for folder, folders, names in os.walk(target):
        skipped = _NOT_COPIED(folder, [*folders, *names])
        folders[:] = [name for name in folders if name not in skipped]
        here = path / Path(folder).relative_to(target)
        here.mkdir(exist_ok=True)
        for name in (name for name in names if name not in skipped):
            _make_way(base, here / name, made)
            _copy(base, here / name, Path(folder, name), made)


def _state(path: Path) -> str:
    """What tells a link or a file of ours from one that was put in its place, or changed."""
    if path.is_symlink():
        return os.readlink(path)
    found = path.stat()
    return f"{found.st_size} bytes, {found.st_mtime_ns}, {path.is_file()}"


def _identity(path: Path) -> str:
    """What tells a file whose content changes, as a log's does, from one put in its place."""
    found = path.lstat()
    return f"file {found.st_ino} of {found.st_dev}"


def _key(base: Path, path: Path) -> str:
    return path.relative_to(base).as_posix()


def _foreign(path: Path) -> HostError:
    return HostError(f"{path} exists, and this program did not make it. Move it elsewhere.")
