"""Runs jobs on an engine, and keeps what becomes of each beside the results.

A job is done when its result is saved and recorded, in this order: whatever is killed between the
two, the next run finds the file and takes it over.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from image_to_prompt.workflows.api_client.inputs import InputsError, with_inputs

from .engines.task import DONE, FAILED, INPUT, STOPPED, Attempt, Engine, Outcome, Task
from .jobs import Job, key_of
from .progress import Progress, Summary
from .results.folder import Folder, Taken
from .results.manifest import File, Journal, Manifest
from .results.remote import Remote


class Destination(Protocol):
    """A place for results, see `Folder`."""

    @property
    def journal(self) -> Journal: ...

    @property
    def scratch(self) -> Path: ...

    def held(self) -> AbstractContextManager: ...

    def has(self, file: File) -> bool: ...

    def save(self, source: Path, place: str, ending: str, taken: Taken) -> File: ...


def destination(out: str) -> Destination:
    """A folder of this machine, or an fsspec URL."""
    return Remote(out) if "://" in out else Folder(Path(out).expanduser().resolve())


def run_collection(
    jobs: Sequence[Job],
    graph: dict,
    to: Destination,
    start: Callable[[], Engine],
    progress: Progress,
) -> Summary:
    """Run every job that `to`, which must be held, has no result of.

    start: makes the engine; not called where nothing is to be run. Raises EngineError if no worker
    is left, OSError if a result cannot be saved, and what `start` raises. On KeyboardInterrupt or
    SystemExit the running jobs are interrupted, and the manifest is whole.
    """
    manifest = Manifest(to.journal)
    manifest.add({"run": "begins", "jobs": len(jobs), **_now()})
    run = _Run(graph, to, manifest, progress, {job.name: job for job in jobs})
    how = "interrupted"
    try:
        tasks = run.tasks(jobs)
        first = next(tasks, None)
        if first is not None:
            _work(run, start(), itertools.chain([first], tasks))
        how = "complete"
    except (OSError, RuntimeError, ValueError) as error:
        how = f"{type(error).__name__}: {error}"
        raise
    finally:
        counted = progress.end()
        manifest.add({"run": "ends", "how": how, "missing": counted.missing, **_now()})
    return counted


def _work(run: _Run, engine: Engine, tasks: Iterable[Task]) -> None:
    try:
        for outcome in engine.run(tasks):
            run.keep(outcome)
    finally:
        for outcome in engine.close():
            run.keep(outcome)


class _Run:
    def __init__(
        self,
        graph: dict,
        to: Destination,
        manifest: Manifest,
        progress: Progress,
        jobs: dict[str, Job],
    ) -> None:
        self._graph, self._to, self._manifest = graph, to, manifest
        self._progress, self._jobs = progress, jobs

    def tasks(self, jobs: Sequence[Job]) -> Iterator[Task]:
        """The jobs that are not done. What can be seen to fail is recorded at once."""
        for job in jobs:
            try:
                if job.problem is not None:
                    raise InputsError(job.problem)
                key = key_of(self._graph, job)
                filled = with_inputs(self._graph, (), job.texts, job.settings)
            except (InputsError, OSError) as error:
                attempt = Attempt(INPUT, str(error), "", 0.0)
                task = Task(job.name, "", {})
                self.keep(Outcome(task, FAILED, "", 0.0, attempts=(attempt,)))
                continue
            done = self._manifest.files_of(job.name, key)
            if done is not None and all(map(self._to.has, done)):
                self._progress.skip()
                continue
            pictures = tuple(zip(job.uploads, job.images, strict=True))
            yield Task(job.name, key, filled, pictures)

    def keep(self, outcome: Outcome) -> None:
        """Save an outcome's files, then record it."""
        if outcome.state == STOPPED:
            return
        task = outcome.task
        place = self._jobs[task.job].place
        record: dict[str, object] = {"job": task.job, "key": task.key, "state": outcome.state}
        if outcome.state == DONE:
            record["files"] = [
                {"path": file.path, "bytes": file.size, "sha256": file.sha256}
                for file in self._saved(outcome, place)
            ]
        elif outcome.attempts:
            record["kind"], record["error"] = outcome.kind, outcome.attempts[-1].error
        if outcome.attempts and (outcome.state == DONE or len(outcome.attempts) > 1):
            record["attempts"] = [asdict(attempt) for attempt in outcome.attempts]
        record |= {"worker": outcome.worker, "seconds": outcome.seconds, **_now()}
        self._manifest.add(record)
        self._progress.take(outcome)

    def _saved(self, outcome: Outcome, place: str) -> list[File]:
        saved: list[File] = []
        for source in outcome.files:
            own = {file.path for file in saved}

            def taken(path: str, own: set[str] = own) -> bool:
                return path in own or self._manifest.names(path)

            saved.append(self._to.save(source, place, source.suffix.lower(), taken))
        return saved


def _now() -> dict[str, object]:
    return {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "process": os.getpid()}
