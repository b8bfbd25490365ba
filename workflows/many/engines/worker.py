"""One ComfyUI server and the jobs that it runs, one after the other.

A job whose server dies is tried again on a new one; a job whose node fails is not, since it would
fail again. Which of the two happened is asked of the server, not read from the error.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from image_to_prompt.workflows.api_client import client, outputs
from image_to_prompt.workflows.api_client.answers import printable
from image_to_prompt.workflows.api_client.http import RunError, get_json
from image_to_prompt.workflows.api_client.inputs import InputsError, with_inputs
from image_to_prompt.workflows.comfyui.hosts import HostError
from image_to_prompt.workflows.comfyui.server import LOG

from . import task as of
from .task import Attempt, Limits, Outcome, Task

Serve = Callable[[int], contextlib.AbstractContextManager[str]]  # number of the start -> address
_FINAL = (of.INPUT, of.REFUSED, of.NODE)
_STARTS = 2  # tries to start one server
_PROBE_SECONDS = 10.0
_WORDS = 5  # lines of its log, where a server has died
_PATIENCE = 60.0  # for a server that is not ours to start again


class WorkerLost(RuntimeError):
    """The server cannot be started, or reached, any more."""

    def __init__(self, why: str, attempts: tuple[Attempt, ...] = ()) -> None:
        super().__init__(why)
        self.attempts = attempts


class _Stop(Exception):
    """The run is being ended."""


class _Late(RunError):
    """The job takes longer than it may."""


class Worker:
    """serve: starts the server for the while of a block, and gives its address.

    scratch: a folder of the worker's own. stopped: set when the run is to end. Not safe for
    several threads: each worker has one.
    """

    def __init__(
        self, name: str, serve: Serve, scratch: Path, limits: Limits, stopped: threading.Event
    ) -> None:
        self.name, self._serve, self._limits = name, serve, limits
        self._scratch, self._stopped = scratch, stopped
        self._open = contextlib.ExitStack()
        self._url: str | None = None
        self._starts = self._folders = 0

    def start(self) -> None:
        """Start the server, if it does not run. Raises WorkerLost."""
        for tried in range(_STARTS):
            if self._url is not None or self._stopped.is_set():
                return
            try:
                self._starts += 1
                self._url = self._open.enter_context(self._serve(self._starts))
            except (HostError, OSError, RunError) as error:
                self.close()
                if tried == _STARTS - 1:
                    raise WorkerLost(str(error)) from error

    def close(self) -> None:
        """Stop the server, if it is ours."""
        self._url = None
        self._open.close()

    def run(self, task: Task, before: tuple[Attempt, ...] = ()) -> Outcome:
        """Run a task; a failure of the job is an outcome. Raises WorkerLost.

        before: attempts of other workers, which count.
        """
        attempts = list(before)
        notes: list[str] = []
        began = time.monotonic()
        state: str | None = None
        files: tuple[Path, ...] = ()
        while state is None:
            at = time.monotonic()
            try:
                self.start()
                at = time.monotonic()  # a start is not the job's time
                self._check(at)
                state, files = of.DONE, self._attempt(task, at, notes.append)
            except _Stop:
                state = of.STOPPED
            except WorkerLost as error:
                raise WorkerLost(str(error), tuple(attempts)) from error
            except (InputsError, OSError, RunError) as error:
                attempts.append(self._failed(error, at))
                state = self._state(attempts)
        seconds = round(time.monotonic() - began, 3)
        return Outcome(task, state, self.name, seconds, files, tuple(attempts), tuple(notes))

    def _failed(self, error: Exception, began: float) -> Attempt:
        """What went wrong; a server that cannot go on is stopped."""
        kind = self._kind(error)
        why = f"{error}{self._last_words()}" if kind == of.KILLS else str(error)
        if kind in (of.KILLS, of.MEMORY, of.TIME):
            self.close()
        return Attempt(kind, why, self.name, round(time.monotonic() - began, 3))

    def _state(self, attempts: list[Attempt]) -> str | None:
        """Whether the job ends with these attempts; None if it is tried again."""
        if self._stopped.is_set():
            return of.STOPPED
        final = attempts[-1].kind in _FINAL or len(attempts) >= self._limits.attempts
        return of.FAILED if final else None

    def _attempt(self, task: Task, began: float, note: Callable[[str], object]) -> tuple[Path, ...]:
        url = self._url
        if url is None:
            raise _Stop
        names = [client.upload(url, self._named(name, path)) for name, path in task.images]
        graph = with_inputs(task.graph, names)
        entry = client.run(url, graph, check=lambda: self._check(began))
        self._folders += 1
        folder = self._scratch / "fetched" / str(self._folders)
        return tuple(outputs.fetch(url, entry, folder, note))

    def _check(self, began: float) -> None:
        if self._stopped.is_set():
            raise _Stop
        if time.monotonic() - began > self._limits.seconds:
            raise _Late(f"no result within {self._limits.seconds:g} s")

    def _named(self, name: str, path: Path) -> Path:
        """The picture as a file of the name under which the server is to know it."""
        if path.name == name:
            return path
        folder = self._scratch / "named"
        folder.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copyfile(path, folder / name))

    def _kind(self, error: Exception) -> str:
        if isinstance(error, client.Refused):
            return of.REFUSED
        if isinstance(error, client.Failed):
            text = str(error).lower()
            return of.MEMORY if "outofmemory" in text or "out of memory" in text else of.NODE
        if isinstance(error, InputsError | OSError):
            return of.INPUT
        if isinstance(error, _Late):
            return of.TIME
        return of.SERVER if self._answers() else of.KILLS

    def _last_words(self) -> str:
        """The end of the log of a server that was started here and has died."""
        log = server_folder(self._scratch, self._starts) / LOG
        try:
            lines = log.read_text(errors="replace").splitlines()[-_WORDS:]
        except OSError:
            return ""
        return "".join(f"\n{printable(line)}" for line in lines)

    def _answers(self) -> bool:
        try:
            get_json(f"{self._url}/system_stats", _PROBE_SECONDS)
        except RunError:
            return False
        return True


def server_folder(scratch: Path, number: int) -> Path:
    """The folder of a worker's server, by the number of its start."""
    return scratch / f"server-{number}"


def running(url: str, stopped: threading.Event) -> Serve:
    """A server that somebody else has started, waited for where it does not answer at once."""

    @contextlib.contextmanager
    def serve(_: int):  # type: ignore[no-untyped-def]
        end = time.monotonic() + _PATIENCE
        while not stopped.is_set():
            try:
                get_json(f"{url}/system_stats", _PROBE_SECONDS)
                break
            except RunError:
                if time.monotonic() > end:
                    raise
                time.sleep(1.0)
        yield url

    return serve
