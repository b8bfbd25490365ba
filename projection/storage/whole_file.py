"""Files written whole or not at all: to a temporary file beside the target, then renamed.

A temporary file `<name>.<32 hex digits>.part` is locked while it is written. One that nobody has
locked was left by a process that was killed; the next write in its folder removes it.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_NAME = "image-to-prompt"
# Earlier versions named a temporary file after its target.
_PART = re.compile(r"(image-to-prompt|.+\.safetensors)\.[0-9a-f]{32}\.part", re.DOTALL)
# Where files cannot be locked, a temporary file older than this has no writer.
_ABANDONED_SECONDS = 3600.0

Chunks = Iterable["bytes | memoryview"]


def replace_file(path: str | Path, chunks: Chunks) -> None:
    """Write `path`, in place of a file that may be there."""
    path = Path(path)
    with _temporary_file(path.parent, chunks) as temporary:
        os.replace(temporary, path)
    _flush_folder(path.parent)


def create_file(folder: str | Path, names: Iterable[str], chunks: Chunks) -> Path:
    """Write a file of the first of `names` that `folder` does not hold, and return its path.

    Never replaces a file, however many processes create files in the folder at the same time.
    Raises FileExistsError where every name is taken.
    """
    folder = Path(folder)
    with _temporary_file(folder, chunks) as temporary:
        for name in names:
            with suppress(FileExistsError):
                _rename_new(temporary, folder / name)
                _flush_folder(folder)
                return folder / name
    raise FileExistsError(f"every name in {folder} is taken")


@contextmanager
def _temporary_file(folder: Path, chunks: Chunks) -> Iterator[Path]:
    """A whole file on disk, locked until the block is left, and then gone if it still is there."""
    _remove_abandoned(folder)
    path, file = _locked_file(folder)
    try:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
        if fcntl is None:  # Windows renames no file that is open
            file.close()
        yield path
    finally:
        file.close()
        path.unlink(missing_ok=True)


def _locked_file(folder: Path) -> tuple[Path, BinaryIO]:
    while True:
        path = folder / f"{_NAME}.{uuid.uuid4().hex}.part"
        # Not tempfile: its files would be readable by this user only.
        file = open(path, "xb")  # noqa: SIM115
        if fcntl is not None:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
        if path.exists():  # else another process took it for abandoned before it was locked
            return path, file
        file.close()


def _rename_new(source: Path, target: Path) -> None:
    """Rename a file that this process made. Raises FileExistsError if there is a target."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        # The empty file reserves the name; nobody but this process may replace it.
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        os.replace(source, target)


def _remove_abandoned(folder: Path) -> None:
    with suppress(OSError):  # a folder that cannot be listed
        for entry in os.scandir(folder):
            if _PART.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with suppress(OSError):  # still written, or another process was faster
                    _remove_unlocked(entry.path)


def _remove_unlocked(path: str) -> None:
    """Remove a temporary file. Raises OSError if a process is still writing it."""
    with open(path, "rb") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
            return
        old = time.time() - os.fstat(file.fileno()).st_mtime > _ABANDONED_SECONDS
    if old:
        os.unlink(path)


def _flush_folder(folder: Path) -> None:
    """Make a rename outlive a power cut, where the system can."""
    with suppress(OSError):  # Windows opens no folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
