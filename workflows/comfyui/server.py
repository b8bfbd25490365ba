"""Starts a ComfyUI as a subprocess, without writing into its folder.

    with server.start(hosts.first(), Path("build/comfy/mine")) as url: ...

It gets a base directory of its own (models, input, output, user, and this pack as its only custom
node), sees the host's models and any further model folders, and is stopped with all its children
at the end. Files of that folder that this program did not make are never replaced or removed.
Standard library only.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NoReturn

from image_to_prompt.workflows.api_client.http import RunError, get_json

from . import placed
from .hosts import PACK, Host, HostError

__all__ = ["ended_by_sigterm", "get_json", "place", "start"]

NODE = "ImageToPromptEmbed"
FOLDERS = ("models", "input", "output", "user", "custom_nodes")
LOG = "comfyui.log"
# Understood by 0.3.64 and 0.33.0 alike. Without a database file nothing is left behind, and
# without API nodes the page asks nothing of the internet.
FLAGS = (
    "--disable-auto-launch",
    "--disable-api-nodes",
    "--database-url",
    "sqlite:///:memory:",
)
GUARD = Path(__file__).with_name("guard.py")
_TAIL_LINES = 25


@contextmanager
def start(
    host: Host,
    base: Path,
    models: Sequence[Path] = (),
    cpu: bool = True,
    seconds: float = 240,
    flags: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Run the host on a free port of this machine, and give its address.

    base: folder for everything it writes, made if missing; the log is `comfyui.log` in it, or
    `comfyui-2.log` and so on where a file of that name is not ours.
    models: further folders laid out as `models/` is (checkpoints/, clip_vision/, ...).
    environment: variables that it gets beside those of this process.
    seconds: how long it may take to answer. Raises HostError, with the end of the log, if it
    does not start, our nodes are not in it, or something else is where a file of ours belongs.
    """
    base = base.expanduser().resolve()
    paths = _model_paths([*models, host.folder / "models"])
    _prepare(base)
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    log = placed.own_file(base, LOG)
    with _scratch(base, paths) as scratch, log.open("wb") as stream, ended_by_sigterm():
        command = _command(host, base, scratch, port, [*(["--cpu"] if cpu else []), *flags])
        process = _launch(command, host.folder, stream, environment or {})
        try:
            _wait(process, url, seconds, host, log)
            _require_nodes(url, host, log)
            yield url
        finally:
            _stop(process)


def place(base: Path, kind: str, file: Path) -> str:
    """Make a model file visible to a host started on `base`; the name it has in its lists.

    Raises HostError if another file of this name, which this program did not put there, is there.
    """
    base, file = base.expanduser().resolve(), file.expanduser()
    folder = base / "models" / kind
    folder.mkdir(parents=True, exist_ok=True)
    placed.link(base, folder / file.name, file.resolve(strict=True))
    return file.name


def _command(host: Host, base: Path, scratch: Path, port: int, flags: Sequence[str]) -> list[str]:
    return [
        str(host.python),
        "main.py",
        "--listen",
        "127.0.0.1",
        "--port",
        str(port),
        "--base-directory",
        str(base),
        "--user-directory",
        str(base / "user"),
        "--temp-directory",
        str(scratch),
        "--extra-model-paths-config",
        str(scratch / "paths.yaml"),
        *FLAGS,
        *flags,
    ]


def _launch(
    command: list[str], folder: Path, log: BinaryIO, environment: Mapping[str, str]
) -> subprocess.Popen:
    """Start the host below a guard, which ends it if this process dies without doing so."""
    own = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, str(GUARD), *command],
        cwd=folder,
        env={**os.environ, **own, **environment},
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _prepare(base: Path) -> None:
    for name in FOLDERS:
        (base / name).mkdir(parents=True, exist_ok=True)
    placed.link(base, base / "custom_nodes" / "image-to-prompt", PACK)


@contextmanager
def _scratch(base: Path, models: dict) -> Iterator[Path]:
    """A new folder for what lasts as long as the server: the host empties its `temp` folder."""
    folder = Path(tempfile.mkdtemp(prefix=".running-", dir=base))
    try:
        (folder / "paths.yaml").write_text(json.dumps(models))  # JSON is YAML
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _model_paths(models: Sequence[Path]) -> dict[str, dict[str, str]]:
    """One section for each folder, listing every kind of model that it has a subfolder for."""
    sections = {}
    for number, folder in enumerate(models):
        folder = folder.expanduser().resolve()
        if not folder.is_dir():
            raise HostError(f"{folder}, named as a folder of models, does not exist.")
        kinds = {kind.name: kind.name for kind in sorted(folder.iterdir()) if kind.is_dir()}
        kinds.pop("configs", None)  # the host's own, and set by itself
        if kinds:
            sections[f"models_{number}"] = {"base_path": str(folder), **kinds}
    return sections


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait(process: subprocess.Popen, url: str, seconds: float, host: Host, log: Path) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise HostError(f"{host} ended with exit code {process.returncode}.\n{_tail(log)}")
        with suppress(RunError):  # refused, or half an answer: not ready yet
            get_json(f"{url}/system_stats", seconds=5)
            return
        time.sleep(0.25)
    raise HostError(f"{host} did not answer within {seconds:.0f} s.\n{_tail(log)}")


def _require_nodes(url: str, host: Host, log: Path) -> None:
    with suppress(RunError):
        if get_json(f"{url}/object_info/{NODE}"):
            return
    raise HostError(f"{host} started, but did not load this pack's nodes.\n{_tail(log)}")


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
    return "\n".join([f"The end of {log}:", *(f"  {line}" for line in lines)])


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM unwind the block, where it would else leave a server or its run behind."""
    own = threading.current_thread() is threading.main_thread()
    if not own or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    code, received = 128 + signal.SIGTERM, threading.Event()

    def end(*_: object) -> NoReturn:
        received.set()
        sys.exit(code)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    except SystemExit:
        if received.is_set():  # libraries with loops of their own raise another: Ray's has code 1
            sys.exit(code)
        raise
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _stop(process: subprocess.Popen) -> None:
    """End the server and whatever it started: politely, then not."""
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()  # the guard ends the host then, where there are no groups
    for name in ("SIGTERM", "SIGKILL"):
        if process.poll() is not None:
            return
        with suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, getattr(signal, name))
            elif name == "SIGKILL":
                process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
