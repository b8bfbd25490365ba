"""Starts a ComfyUI as a subprocess, without writing into its folder.

    with server.start(hosts.first(), Path("build/comfy/mine")) as url: ...

It gets a base directory of its own (models, input, output, user, and this pack as its only custom
node), sees the host's models and any further model folders, and is stopped with all its children
at the end. Standard library only.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .hosts import PACK, Host, HostError

NODE = "ImageToPromptEmbed"
FOLDERS = ("models", "input", "output", "temp", "user", "custom_nodes")
LOG = "comfyui.log"
# Understood by 0.3.64 and 0.33.0 alike. Without a database file nothing is left behind, and
# without API nodes the page asks nothing of the internet.
FLAGS = (
    "--disable-auto-launch",
    "--disable-api-nodes",
    "--database-url",
    "sqlite:///:memory:",
)
_NOT_COPIED = shutil.ignore_patterns(".*", "build", "dist", "__pycache__")
_TAIL_LINES = 25


@contextmanager
def start(
    host: Host,
    base: Path,
    models: Sequence[Path] = (),
    cpu: bool = True,
    seconds: float = 240,
    flags: Sequence[str] = (),
) -> Iterator[str]:
    """Run the host on a free port of this machine, and give its address.

    base: folder for everything it writes, made if missing; the log is `comfyui.log` in it.
    models: further folders laid out as `models/` is (checkpoints/, clip_vision/, ...).
    seconds: how long it may take to answer. Raises HostError, with the end of the log, if it
    does not start or our nodes are not in it.
    """
    base = base.expanduser().resolve()
    _prepare(base, [*models, host.folder / "models"])
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    command = _command(host, base, port, [*(["--cpu"] if cpu else []), *flags])
    log = base / LOG
    with log.open("wb") as stream, _ended_by_sigterm():
        process = _launch(command, host.folder, stream)
        try:
            _wait(process, url, seconds, host, log)
            _require_nodes(url, host, log)
            yield url
        finally:
            _stop(process)


def place(base: Path, kind: str, file: Path) -> str:
    """Make a model file visible to a host started on `base`; the name it has in its lists."""
    file = file.expanduser().resolve()
    folder = base.expanduser().resolve() / "models" / kind
    folder.mkdir(parents=True, exist_ok=True)
    _link(folder / file.name, file)
    return file.name


def get_json(url: str, seconds: float = 30) -> dict:
    """What a GET answers, parsed."""
    with urllib.request.urlopen(url, timeout=seconds) as answer:
        return json.load(answer)


def _command(host: Host, base: Path, port: int, flags: Sequence[str]) -> list[str]:
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
        str(base),
        "--extra-model-paths-config",
        str(base / "paths.yaml"),
        *FLAGS,
        *flags,
    ]


def _launch(command: list[str], folder: Path, log: BinaryIO) -> subprocess.Popen:
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _prepare(base: Path, models: Sequence[Path]) -> None:
    for name in FOLDERS:
        (base / name).mkdir(parents=True, exist_ok=True)
    _link(base / "custom_nodes" / "image-to-prompt", PACK)
    (base / "paths.yaml").write_text(json.dumps(_model_paths(models)))  # JSON is YAML


def _link(link: Path, target: Path) -> None:
    if link.is_symlink() or link.is_file():
        link.unlink()
    elif link.exists():
        shutil.rmtree(link)
    try:
        link.symlink_to(target, target_is_directory=target.is_dir())
    except OSError:  # Windows without the privilege to link
        if target.is_dir():
            shutil.copytree(target, link, ignore=_NOT_COPIED)
        else:
            shutil.copy2(target, link)


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
        with suppress(OSError, ValueError):  # refused, or half an answer: not ready yet
            get_json(f"{url}/system_stats", seconds=5)
            return
        time.sleep(0.25)
    raise HostError(f"{host} did not answer within {seconds:.0f} s.\n{_tail(log)}")


def _require_nodes(url: str, host: Host, log: Path) -> None:
    with suppress(urllib.error.HTTPError):
        if get_json(f"{url}/object_info/{NODE}"):
            return
    raise HostError(f"{host} started, but did not load this pack's nodes.\n{_tail(log)}")


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
    return "\n".join([f"The end of {log}:", *(f"  {line}" for line in lines)])


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM unwind the block, where it would else leave the server running."""
    own = threading.current_thread() is threading.main_thread()
    if not own or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _stop(process: subprocess.Popen) -> None:
    """End the server and whatever it started: politely, then not."""
    for name in ("SIGTERM", "SIGKILL"):
        if process.poll() is not None:
            return
        with suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, getattr(signal, name))
            else:
                process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
