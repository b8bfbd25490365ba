"""The engine for a Ray cluster: an actor for each GPU, which owns a server on its machine.

The one module that uses Ray. A machine needs this pack and ComfyUI with its models; pictures and
results pass through Ray. An actor that dies, with its machine or alone, is made anew wherever the
cluster has a GPU for it, and its job is tried again.
"""

from __future__ import annotations

import collections
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..missing import require
from ..signals import sigterm_kept
from . import task as of
from .hosted import Spec, unpacked
from .task import Attempt, EngineError, Outcome, Task

_BLINK = 0.5  # seconds
_START_SECONDS = 600.0  # for the first free worker, where none works
_END_SECONDS = 30.0  # for running jobs, after an interrupt
_LISTENER_SECONDS = 10.0
_STARTS = 3  # of one worker in a row that bring nothing
_Given = tuple[Task, tuple[Attempt, ...]]


@dataclass
class _Running:
    number: int
    given: _Given
    began: float


class Cluster:
    """count: actors; one for each GPU of the cluster if None, or for each machine on the CPU."""

    def __init__(
        self, address: str | None, spec: Spec, count: int | None, scratch: Path, verbose: bool
    ) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
        self._ray = require("ray", "a Ray cluster")
        self.stopped = threading.Event()
        self._spec, self._scratch = spec, scratch
        own = {} if address else {"include_dashboard": False}
        where = address or "this machine"
        try:
            _require_listener(address)
            with sigterm_kept():
                self._ray.init(
                    address=address, log_to_driver=verbose, logging_level="warning", **own
                )
        except (OSError, RuntimeError, ValueError) as error:
            raise EngineError(f"no Ray cluster at {where}: {_line(error)}") from error
        self._class = self._ray.remote(concurrency_groups={"control": 1})(_actor(self._ray))
        self._count = count or self._places()
        if not self._count:
            self._ray.shutdown()
            raise EngineError("the cluster has no GPU; --cpu runs a server on each machine's CPU")
        self._actors: dict[int, Any] = {}
        self._starting: dict[Any, int] = {}
        self._running: dict[Any, _Running] = {}
        self._free: list[int] = []
        self._starts = collections.Counter[int]()
        self._again: collections.deque[_Given] = collections.deque()
        self._why, self._fetched = "no worker started", 0
        for number in range(1, self._count + 1):
            self._begin(number)

    @property
    def workers(self) -> int:
        return self._count

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """See `Engine.run`."""
        waiting = iter(tasks)
        idle_since = time.monotonic()
        exhausted = False
        while True:
            while self._free and not (exhausted and not self._again):
                given = self._again.popleft() if self._again else self._next(waiting)
                if given is None:
                    exhausted = True
                else:
                    self._give(self._free.pop(), given)
            if exhausted and not self._running and not self._again:
                return
            if self._running:
                idle_since = time.monotonic()
            self._require_worker(time.monotonic() - idle_since)
            yield from self._heard(_BLINK)

    def close(self) -> list[Outcome]:
        """See `Engine.close`."""
        self.stopped.set()
        for actor in self._actors.values():
            actor.stop.remote()
        end = time.monotonic() + _END_SECONDS
        waiting = set(self._starting.values())  # perhaps for a machine that never comes
        self._starting.clear()
        left = []
        while self._running and time.monotonic() < end:
            left += list(self._heard(_BLINK))
        closing = [
            actor.close.remote() for number, actor in self._actors.items() if number not in waiting
        ]
        if closing:
            self._ray.wait(closing, num_returns=len(closing), timeout=_END_SECONDS)
        for actor in self._actors.values():
            self._ray.kill(actor)  # what is left of its server ends with it
        self._actors.clear()
        self._running.clear()
        self._ray.shutdown()
        return left

    def _places(self) -> int:
        if self._spec.cpu:
            return sum(node["Alive"] for node in self._ray.nodes())
        return int(self._ray.cluster_resources().get("GPU", 0))

    @staticmethod
    def _next(waiting: Iterator[Task]) -> _Given | None:
        task = next(waiting, None)
        return None if task is None else (task, ())

    def _begin(self, number: int) -> None:
        """Make a worker's actor, which starts its server; the worker is free when it has."""
        needs = {"num_cpus": self._spec.threads or 1} if self._spec.cpu else {"num_gpus": 1}
        options = self._class.options(scheduling_strategy="SPREAD", max_restarts=0, **needs)
        self._actors[number] = options.remote(f"worker {number}", asdict(self._spec))
        self._starts[number] += 1
        self._starting[self._actors[number].start.remote()] = number

    def _give(self, number: int, given: _Given) -> None:
        task, attempts = given
        try:
            images = [(name, path.read_bytes()) for name, path in task.images]
        except OSError as error:  # gone since its key was computed
            images = [(name, str(error).encode()) for name, _ in task.images]
        told = {"graph": task.graph, "images": images}
        told["attempts"] = [asdict(attempt) for attempt in attempts]
        ref = self._actors[number].run.remote(told)
        self._running[ref] = _Running(number, given, time.monotonic())

    def _require_worker(self, idle: float) -> None:
        if not self._running and not self._free:
            if not self._starting:
                raise EngineError(self._why)
            if idle > _START_SECONDS:
                raise EngineError(f"no worker is ready after {_START_SECONDS:.0f} s: {self._why}")

    def _heard(self, seconds: float) -> Iterator[Outcome]:
        """Outcomes of what has ended meanwhile; workers that have started become free."""
        refs = [*self._starting, *self._running]
        for ref in self._ray.wait(refs, num_returns=1, timeout=seconds)[0]:
            if ref in self._starting:
                self._has_started(ref, self._starting.pop(ref))
            else:
                yield from self._has_run(ref, self._running.pop(ref))

    def _has_started(self, ref: Any, number: int) -> None:
        try:
            why = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            self._why = f"worker {number}: {_line(error)}"
            if self._starts[number] < _STARTS and not self.stopped.is_set():
                self._begin(number)
            return
        if why is None:
            self._free.append(number)
        else:
            self._why = f"worker {number}: {why}"

    def _has_run(self, ref: Any, was: _Running) -> Iterator[Outcome]:
        task, _ = was.given
        try:
            told = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            yield from self._died(was, _line(error))
            return
        self._starts[was.number] = 0
        if "lost" in told:
            self._why = f"worker {was.number}: {told['lost']}"
            self._again.append((task, tuple(Attempt(**one) for one in told["attempts"])))
            return
        self._free.append(was.number)
        self._fetched += 1
        yield unpacked(told, task, self._scratch / "fetched" / str(self._fetched))

    def _died(self, was: _Running, why: str) -> Iterator[Outcome]:
        """The actor is gone, with its machine or alone: another one, and the job again."""
        task, attempts = was.given
        name = f"worker {was.number}"
        seconds = round(time.monotonic() - was.began, 3)
        attempts = (*attempts, Attempt(of.KILLS, f"the worker is gone: {why}", name, seconds))
        if len(attempts) >= self._spec.limits.attempts:
            yield Outcome(task, of.FAILED, name, seconds, attempts=attempts)
        elif not self.stopped.is_set():
            self._again.append((task, attempts))
        if not self.stopped.is_set():
            self._begin(was.number)


def _require_listener(address: str | None) -> None:
    """Ray itself tries for minutes where nobody listens. Raises OSError at once."""
    host, _, port = (address or "").rpartition("/")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), _LISTENER_SECONDS).close()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _actor(ray: Any) -> type:
    """The actor's class. It is sent by value: a machine can import the rest only after it has
    made the pack importable, so that nothing of this module may be used in it.
    """

    class Actor:
        def __init__(self, name: str, spec: dict) -> None:
            import pathlib
            import runpy

            runpy.run_path(str(pathlib.Path(spec["pack"]) / "workflows" / "checkout.py"))
            from image_to_prompt.workflows.many.engines import hosted, task

            limits = task.Limits(**spec.pop("limits"))
            self._hosted = hosted.Hosted(name, hosted.Spec(**spec, limits=limits))

        def start(self) -> str | None:
            return self._hosted.start()

        def run(self, told: dict) -> dict:
            return self._hosted.run(told)

        def close(self) -> None:
            self._hosted.close()

        @ray.method(concurrency_group="control")
        def stop(self) -> None:
            self._hosted.stopped.set()

    return Actor
