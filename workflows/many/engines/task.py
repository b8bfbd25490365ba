"""What passes between the driver and an engine: a task goes in, an outcome comes out."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

DONE, FAILED, STOPPED = "done", "failed", "stopped"

# Kinds of failure. The first three come back however often a job is tried.
INPUT, REFUSED, NODE = "input", "refused", "node"
MEMORY, SERVER, TIME, KILLS = "out of memory", "server", "time", "kills the server"


@dataclass(frozen=True)
class Task:
    """A job as an engine takes it. images: (name for the server, file here)."""

    job: str
    key: str
    graph: dict
    images: tuple[tuple[str, Path], ...] = ()


@dataclass(frozen=True)
class Attempt:
    """One try that did not succeed, in the server's words."""

    kind: str
    error: str
    worker: str
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """What became of a task. files: what the run saved, in a folder that is the caller's now."""

    task: Task
    state: str
    worker: str
    seconds: float
    files: tuple[Path, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """Why it failed; '' if it did not."""
        return self.attempts[-1].kind if self.state == FAILED and self.attempts else ""


@dataclass(frozen=True)
class Limits:
    """attempts: of one job, where a server or its memory is at fault. seconds: of one attempt."""

    attempts: int = 3
    seconds: float = 3600.0


class EngineError(RuntimeError):
    """No worker is left; the message is the last one's."""


class Engine(Protocol):
    """Runs tasks on workers. At most two tasks for each worker are taken ahead of time."""

    stopped: threading.Event

    @property
    def workers(self) -> int: ...

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Outcomes in the order of their ends. Raises EngineError if no worker is left."""
        ...

    def close(self) -> list[Outcome]:
        """Interrupt what runs and stop the servers; outcomes that nobody has taken yet."""
        ...


@dataclass
class Lost:
    """A worker that gave up, and the task that it had, if any."""

    worker: str
    why: str
    task: Task | None = None
    attempts: tuple[Attempt, ...] = field(default=())
