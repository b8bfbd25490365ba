"""The engine for one machine: a thread for each server. Nothing has to be installed for it."""

from __future__ import annotations

import itertools
import queue
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence

from .task import Attempt, EngineError, Lost, Outcome, Task
from .worker import Worker, WorkerLost

_AHEAD = 2  # tasks for each worker that are taken before they are needed
_BLINK = 0.5  # seconds; a wait without an end cannot be interrupted on every system
_Given = tuple[Task, tuple[Attempt, ...]]


class Threads:
    """make: for each worker a function that makes it, given the event that ends the run."""

    def __init__(self, make: Sequence[Callable[[threading.Event], Worker]]) -> None:
        self.stopped = threading.Event()
        self._todo: queue.Queue[_Given | None] = queue.Queue()
        self._results: queue.Queue[Outcome | Lost] = queue.Queue()
        self._alive = len(make)
        self._threads = [
            threading.Thread(target=self._work, args=(one(self.stopped),), daemon=True)
            for one in make
        ]
        for thread in self._threads:
            thread.start()

    @property
    def workers(self) -> int:
        return len(self._threads)

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """See `Engine.run`."""
        waiting = iter(tasks)
        opened = 0
        for task in itertools.islice(waiting, _AHEAD * self.workers):
            self._todo.put((task, ()))
            opened += 1
        while opened:
            try:
                found = self._results.get(timeout=_BLINK)
            except queue.Empty:
                continue
            if isinstance(found, Lost):
                self._retire(found)
                continue
            opened -= 1
            yield found
            for task in itertools.islice(waiting, 1):
                self._todo.put((task, ()))
                opened += 1

    def close(self) -> list[Outcome]:
        """See `Engine.close`."""
        self.stopped.set()
        for _ in self._threads:
            self._todo.put(None)
        for thread in self._threads:
            while thread.is_alive():
                thread.join(_BLINK)
        left = []
        with_more = True
        while with_more:
            try:
                found = self._results.get_nowait()
            except queue.Empty:
                with_more = False
            else:
                left += [found] if isinstance(found, Outcome) else []
        return left

    def _retire(self, lost: Lost) -> None:
        """Count a worker out, and give its task to another one."""
        self._alive -= 1
        if lost.task is not None:
            self._todo.put((lost.task, lost.attempts))
        if not self._alive:
            raise EngineError(f"{lost.worker}: {lost.why}")

    def _work(self, worker: Worker) -> None:
        given: _Given | None = None
        try:
            worker.start()
            while (given := self._todo.get()) is not None and not self.stopped.is_set():
                self._results.put(worker.run(*given))
                given = None
        except WorkerLost as error:
            self._results.put(self._lost(worker, str(error), given, error.attempts))
        except BaseException:  # a mistake here: told by the driver, which would else wait for ever
            self._results.put(self._lost(worker, traceback.format_exc(), given, ()))
        finally:
            worker.close()

    @staticmethod
    def _lost(
        worker: Worker, why: str, given: _Given | None, attempts: tuple[Attempt, ...]
    ) -> Lost:
        return Lost(worker.name, why, given[0] if given else None, attempts)
