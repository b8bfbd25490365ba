"""What became of every job: JSON lines beside the results, of which no line is ever half read.

    {"job": "cat.png", "key": "...", "state": "done", "files": [{"path", "bytes", "sha256"}], ...}
    {"job": "dog.png", "key": "...", "state": "failed", "kind": "node", "error": "...", ...}
    {"run": "begins", ...}      without a later {"run": "ends"}: the program was killed

The last record of a job counts. `attempts` holds what went wrong before it went well, too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

NAME = "manifest.jsonl"
TORN = "manifest.torn"


@dataclass(frozen=True)
class File:
    """A result. path: below the folder of results, with slashes."""

    path: str
    size: int
    sha256: str


class Journal(Protocol):
    """Where records are kept."""

    def read(self) -> str: ...

    def append(self, line: str) -> None: ...


class Manifest:
    """The records of a folder of results, read once and then added to."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._last: dict[str, dict] = {}
        self._paths: set[str] = set()
        self.unreadable = 0  # lines that are no record; their jobs run again
        for line in journal.read().splitlines():
            record = _record(line)
            if record is None:
                self.unreadable += 1
            else:
                self._take(record)

    def files_of(self, job: str, key: str) -> list[File] | None:
        """The results of a job that is done with this key; None if it is not."""
        record = self._last.get(job, {})
        if record.get("state") != "done" or record.get("key") != key:
            return None
        return list(_files(record))

    def names(self, path: str) -> bool:
        """Whether a result is recorded under this path."""
        return path in self._paths

    def add(self, record: dict) -> None:
        """Keep a record: when this returns it is on the disk."""
        self._journal.append(json.dumps(record, ensure_ascii=True) + "\n")
        self._take(record)

    def _take(self, record: dict) -> None:
        job = record.get("job")
        if isinstance(job, str):
            self._last[job] = record
            self._paths |= {file.path for file in _files(record)}


class LocalJournal:
    """Lines in a file of a folder. A line that a kill has cut off is set aside, not read."""

    def __init__(self, folder: Path) -> None:
        self._file, self._torn = folder / NAME, folder / TORN
        self._number: int | None = None

    def read(self) -> str:
        try:
            content = self._file.read_bytes()
        except FileNotFoundError:
            return ""
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with self._torn.open("ab") as torn:
                torn.write(content[whole:] + b"\n")
            os.truncate(self._file, whole)
        return content[:whole].decode(errors="replace")

    def append(self, line: str) -> None:
        if self._number is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
            self._number = os.open(self._file, flags, 0o666)
        data = line.encode()
        while data:
            data = data[os.write(self._number, data) :]
        os.fsync(self._number)

    def close(self) -> None:
        if self._number is not None:
            os.close(self._number)
            self._number = None


def _record(line: str) -> dict | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _files(record: dict) -> Iterator[File]:
    files = record.get("files")
    for item in files if isinstance(files, list) else ():
        if isinstance(item, dict):
            path, size, digest = (item.get(key) for key in ("path", "bytes", "sha256"))
            if isinstance(path, str) and isinstance(size, int):
                yield File(path, size, str(digest))
