"""A folder of results on this machine: files appear whole, and none is ever replaced."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ..jobs import file_hash
from .manifest import File, LocalJournal

OWN = ".image-to-prompt"  # what this program alone writes to: the lock, and what is under way
Taken = Callable[[str], bool]


class InUseError(RuntimeError):
    """Another run saves into the same folder."""


class Folder:
    """Results below a folder, made if missing. Use it as a block: it holds the folder's lock."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.scratch = root / OWN / "running"
        self.journal = LocalJournal(root)

    @contextmanager
    def held(self) -> Iterator[Folder]:
        """The folder, with nobody else in it. Raises InUseError, OSError."""
        (self._root / OWN).mkdir(parents=True, exist_ok=True)
        with _locked(self._root / OWN / "lock"):
            shutil.rmtree(self.scratch, ignore_errors=True)  # of a run that was killed
            self.scratch.mkdir(exist_ok=True)
            try:
                yield self
            finally:
                self.journal.close()
                shutil.rmtree(self.scratch, ignore_errors=True)

    def has(self, file: File) -> bool:
        """Whether a recorded result is there, in its size."""
        try:
            return (self._root / file.path).stat().st_size == file.size
        except OSError:
            return False

    def save(self, source: Path, place: str, ending: str, taken: Taken) -> File:
        """Move a file to `place` with this ending, or the next free name beside it.

        A file there that no record names, with the same content, is left by a run that was killed
        between saving and recording: it becomes the result. taken: whether a record names a path.
        """
        digest, size = file_hash(source), source.stat().st_size
        _to_disk(source)
        for path in names(place, ending):
            target = self._root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if _moved(source, target):
                return File(path, size, digest)
            if taken(path) or not target.is_file() or target.stat().st_size != size:
                continue
            if file_hash(target) == digest:
                source.unlink()
                return File(path, size, digest)
        raise AssertionError("names never end")


def names(place: str, ending: str) -> Iterator[str]:
    """place.png, place-2.png, place-3.png, ..."""
    number = 1
    while True:
        yield f"{place}{'' if number == 1 else f'-{number}'}{ending}"
        number += 1


def _moved(source: Path, target: Path) -> bool:
    """Whether the file is now at a place where nothing was. It appears there whole or not at all.

    Where the file system has no hard links, a kill can leave part of a file; no record names it.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError:
        try:
            with source.open("rb") as content, target.open("xb") as file:
                shutil.copyfileobj(content, file)
                file.flush()
                os.fsync(file.fileno())
        except FileExistsError:
            return False
    with suppress(OSError):
        source.unlink()
    return True


def _to_disk(file: Path) -> None:
    with file.open("rb+") as content:
        os.fsync(content.fileno())


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Hold a lock, which the system frees however this process ends. Raises InUseError."""
    with file.open("a+b") as opened:
        if not _lock(opened):
            raise InUseError(f"{file.parent.parent}: another run saves into this folder")
        yield


if os.name == "nt":
    import msvcrt

    def _lock(file: IO[bytes]) -> bool:
        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True

else:
    import fcntl

    def _lock(file: IO[bytes]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
