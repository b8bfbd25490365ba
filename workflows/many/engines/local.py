"""The workers of one machine: a ComfyUI for each GPU, or one on the CPU."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from image_to_prompt.workflows.comfyui import server
from image_to_prompt.workflows.comfyui.hosts import Host, HostError

from .task import Limits
from .worker import Serve, Worker, running, server_folder

_PROBE = (
    "import torch; mps = getattr(torch.backends, 'mps', None); n = torch.cuda.device_count(); "
    "print(n if n else 'mps' if mps and mps.is_available() else 0)"
)
_PROBE_SECONDS = 180
Make = Callable[[threading.Event], Worker]


@dataclass(frozen=True)
class Device:
    """What a server runs on: `cpu`, or its GPU by the variables that single it out."""

    cpu: bool
    environment: tuple[tuple[str, str], ...] = ()


def devices(host: Host) -> list[Device]:
    """A device for each GPU that the host's PyTorch sees; the CPU if it sees none.

    Raises HostError if its PyTorch does not say.
    """
    command = [str(host.python), "-c", _PROBE]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PROBE_SECONDS, cwd=host.folder.anchor
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"{host.python} does not say which GPUs it sees: {error}") from error
    told = done.stdout.strip()
    if done.returncode or not (told.isdigit() or told == "mps"):
        why = (done.stderr.strip().splitlines() or [told])[-1]
        raise HostError(f"{host.python} does not say which GPUs it sees: {why}")
    if told == "mps":
        return [Device(False)]
    stated = [part for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part]
    names = stated[: int(told)] or [str(number) for number in range(int(told))]
    return [Device(False, (("CUDA_VISIBLE_DEVICES", name),)) for name in names] or [Device(True)]


def shared(device: Device, count: int, threads: int | None = None) -> list[Device]:
    """`count` servers on a device; on the CPU each gets its share of the cores, or `threads`."""
    if not device.cpu or (count == 1 and threads is None):
        return [device] * count
    each = str(threads or max(1, (os.cpu_count() or 1) // count))
    variables = tuple((f"{library}_NUM_THREADS", each) for library in ("OMP", "MKL", "OPENBLAS"))
    return [Device(True, variables)] * count


def started(host: Host, models: Sequence[Path], device: Device, scratch: Path) -> Serve:
    """Starts a server on a device, each time on a folder of its own, so that a picture that was
    half uploaded to a server that died does not stand in the way of its name.
    """

    @contextlib.contextmanager
    def serve(number: int) -> Iterator[str]:
        base = server_folder(scratch, number)
        base.mkdir(parents=True)
        environment = dict(device.environment)
        with server.start(host, base, models, device.cpu, environment=environment) as url:
            yield url

    return serve


def start_workers(
    host: Host, models: Sequence[Path], on: Sequence[Device], scratch: Path, limits: Limits
) -> list[Make]:
    """How to make a worker for each of these devices, whose server is started there."""

    def make(number: int, device: Device) -> Make:
        folder = scratch / f"worker-{number}"

        def worker(stopped: threading.Event) -> Worker:
            serve = started(host, models, device, folder)
            return Worker(f"worker {number}", serve, folder, limits, stopped)

        return worker

    return [make(number, device) for number, device in enumerate(on, start=1)]


def use_workers(urls: Sequence[str], scratch: Path, limits: Limits) -> list[Make]:
    """How to make a worker for each of these running servers."""

    def make(number: int, url: str) -> Make:
        folder = scratch / f"worker-{number}"
        return lambda stopped: Worker(url, running(url, stopped), folder, limits, stopped)

    return [make(number, url) for number, url in enumerate(urls, start=1)]
