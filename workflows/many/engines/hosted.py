"""A worker on another machine, as that machine sees it: plain dictionaries in and out.

Pictures come as bytes and results go as bytes; nothing is unpickled but what a cluster's own
processes send to each other. There is no Ray in here.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path

from image_to_prompt.workflows.comfyui import hosts

from .local import Device, shared, started
from .task import Attempt, Limits, Outcome, Task
from .worker import Serve, Worker, WorkerLost, running


@dataclass(frozen=True)
class Spec:
    """What a machine needs to know for a worker.

    pack, host: folders there, of this pack and of ComfyUI; without a host the first that is found.
    server: a ComfyUI that runs on each machine, used in place of one that is started.
    threads: of a server on the CPU; one if None, as equal machines with any number of cores.
    """

    pack: str
    host: str | None = None
    server: str | None = None
    models: tuple[str, ...] = ()
    cpu: bool = False
    threads: int | None = None
    limits: Limits = field(default_factory=Limits)


class Hosted:
    """A worker with a folder of its own, which is removed at the end."""

    def __init__(self, name: str, spec: Spec) -> None:
        self.stopped = threading.Event()
        self._scratch = Path(tempfile.mkdtemp(prefix="image-to-prompt-"))
        serve = _serve(spec, self._scratch, self.stopped)
        self._worker = Worker(name, serve, self._scratch, spec.limits, self.stopped)

    def start(self) -> str | None:
        """Start the server; why that is not possible."""
        try:
            self._worker.start()
        except WorkerLost as error:
            return str(error)
        return None

    def run(self, task: dict) -> dict:
        """An outcome as a dictionary, or why the worker gives up, as `lost`."""
        folder = Path(tempfile.mkdtemp(dir=self._scratch))
        images = []
        for number, (name, content) in enumerate(task["images"]):
            path = folder / str(number) / name
            path.parent.mkdir()
            path.write_bytes(content)
            images.append((name, path))
        before = tuple(Attempt(**attempt) for attempt in task["attempts"])
        try:
            outcome = self._worker.run(Task("", "", task["graph"], tuple(images)), before)
        except WorkerLost as error:
            return {"lost": str(error), "attempts": [asdict(one) for one in error.attempts]}
        finally:
            shutil.rmtree(folder)
        return _packed(outcome)

    def close(self) -> None:
        """Stop the server, and remove the folder."""
        self._worker.close()
        shutil.rmtree(self._scratch, ignore_errors=True)


def unpacked(told: dict, task: Task, folder: Path) -> Outcome:
    """The outcome that `Hosted.run` gave, with its files in this folder."""
    files = []
    for number, (name, content) in enumerate(told["files"]):
        path = folder / str(number) / Path(name).name
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        files.append(path)
    attempts = tuple(Attempt(**attempt) for attempt in told["attempts"])
    state, worker, seconds = told["state"], told["worker"], told["seconds"]
    return Outcome(task, state, worker, seconds, tuple(files), attempts, tuple(told["notes"]))


def _packed(outcome: Outcome) -> dict:
    files = [(path.name, path.read_bytes()) for path in outcome.files]
    for path in outcome.files:
        path.unlink()
    return {
        "state": outcome.state,
        "worker": outcome.worker,
        "seconds": outcome.seconds,
        "files": files,
        "attempts": [asdict(attempt) for attempt in outcome.attempts],
        "notes": list(outcome.notes),
    }


def _serve(spec: Spec, scratch: Path, stopped: threading.Event) -> Serve:
    if spec.server is not None:
        return running(spec.server, stopped)
    host = hosts.host_in(Path(spec.host)) if spec.host else hosts.first()
    [device] = shared(Device(spec.cpu), 1, (spec.threads or 1) if spec.cpu else None)
    return started(host, [Path(folder) for folder in spec.models], device, scratch)
