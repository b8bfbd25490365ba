"""Results below an fsspec URL, such as s3://bucket/results. Whole objects are put, none replaced.

Stores have no lock that a killed program frees: two runs at once are not kept apart by it. The
manifest is put as a whole, every few seconds and at the end.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..jobs import file_hash
from ..missing import require
from .folder import Taken, names
from .manifest import NAME, File

_SECONDS = 10.0  # between two manifests; what a kill can leave unrecorded


class Remote:
    """The same as `Folder`, below a URL."""

    def __init__(self, url: str) -> None:
        fsspec = require("fsspec", f"saving to {url}")
        self._files, self._root = fsspec.core.url_to_fs(url)
        self.scratch = Path(tempfile.gettempdir())
        self.journal = _RemoteJournal(self._files, f"{self._root}/{NAME}")

    @contextmanager
    def held(self) -> Iterator[Remote]:
        """The URL, with a folder of this machine for what is under way."""
        self.scratch = Path(tempfile.mkdtemp(prefix="image-to-prompt-"))
        try:
            self._files.makedirs(self._root, exist_ok=True)
            yield self
        finally:
            try:
                self.journal.put()
            finally:
                shutil.rmtree(self.scratch, ignore_errors=True)

    def has(self, file: File) -> bool:
        """Whether a recorded result is there, in its size."""
        try:
            return bool(self._files.info(f"{self._root}/{file.path}")["size"] == file.size)
        except FileNotFoundError:
            return False

    def save(self, source: Path, place: str, ending: str, taken: Taken) -> File:
        """See `Folder.save`."""
        digest, size = file_hash(source), source.stat().st_size
        for path in names(place, ending):
            address = f"{self._root}/{path}"
            if not self._files.exists(address):
                self._files.makedirs(address.rpartition("/")[0], exist_ok=True)
                self._files.put_file(str(source), address)
                source.unlink()
                return File(path, size, digest)
            if not taken(path) and self._files.info(address)["size"] == size:
                found = self._files.cat_file(address)
                if found == source.read_bytes():
                    source.unlink()
                    return File(path, size, digest)
        raise AssertionError("names never end")


class _RemoteJournal:
    def __init__(self, files: Any, address: str) -> None:
        self._files, self._address = files, address
        self._text, self._put_at, self._changed = "", time.monotonic(), False

    def read(self) -> str:
        try:
            self._text = self._files.cat_file(self._address).decode(errors="replace")
        except FileNotFoundError:
            self._text = ""
        return self._text

    def append(self, line: str) -> None:
        self._text += line
        self._changed = True
        if time.monotonic() - self._put_at > _SECONDS:
            self.put()

    def put(self) -> None:
        if self._changed:
            self._files.pipe_file(self._address, self._text.encode())
            self._put_at, self._changed = time.monotonic(), False
