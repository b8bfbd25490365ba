"""The parts of many_bench that start a real ComfyUI."""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from image_to_prompt.workflows.comfyui import hosts, server
from image_to_prompt.workflows.many.results.folder import OWN

RUN_MANY = hosts.PACK / "workflows" / "run_many.py"
VARIATION = hosts.PACK / "workflows" / "api" / "variation.json"
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_BLINK = 0.02  # seconds


# Pictures that core's own nodes scale: a job takes no time, so that only the engine is measured.
SCALED = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "x"}},
    "2": {
        "class_type": "ImageScale",
        "inputs": {
            "image": ["1", 0],
            "upscale_method": "bicubic",
            "width": 512,
            "height": 512,
            "crop": "disabled",
        },
    },
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "scaled"}},
}


def host(folder: Path, options: argparse.Namespace) -> None:
    """Wall time from the first result to the last, which leaves the servers' start out."""
    line = _variation(folder, options.pictures)
    seconds = {}
    for workers in (1, 2):
        out = folder / f"out-{workers}"
        quiet([*line, "--workers", str(workers), "--out", str(out)])
        files = sorted(path.stat().st_mtime for path in out.glob("*.png"))
        seconds[workers] = (files[-1] - files[workers - 1]) / (len(files) - workers)
    ratio = seconds[2] / seconds[1]
    print(f"host: {seconds[1]:.2f} s a picture on one server, {ratio:.2f} of it on two")
    print(
        f"      {_same(folder / 'out-1', folder / 'out-2')} of {options.pictures} results are equal"
    )


def start(folder: Path, options: argparse.Namespace) -> None:
    """From the command to the first job, less the server's own start, by turns.

    Beside the seconds that passed: the CPU seconds of the command and of all that it called to
    its end before the first job, which are what passes on a machine that does nothing else.
    """
    found = hosts.first()
    line = [word for word in _scaled(folder, 1) if word != "--cpu"]  # the GPUs are looked for
    ours, own, processor = [], [], []
    for number in range(options.repeats):
        began = time.monotonic()
        with server.start(found, folder / f"base-{number}", cpu=True):
            own.append(time.monotonic() - began)
        taken, used = _first_job([*line, "--out", str(folder / f"out-{number}")])
        ours.append(taken)
        processor.append(used)
    extra = [one - other for one, other in zip(ours, own, strict=True)]
    for name, values in (
        ("server's own start", own),
        ("command to first job", ours),
        ("difference", extra),
        ("CPU of the command", processor),
    ):
        told = ", ".join(f"{value:.1f}" for value in sorted(values))
        print(f"start: {name}: median {statistics.median(values):.1f} s of {told}")


def killed(folder: Path, options: argparse.Namespace) -> None:
    """A server, in another run the driver, killed by signal 9 in the middle; then run again."""
    count = max(options.pictures, 64)
    line = [*_scaled(folder, count), "--workers", "2", "--verbose"]
    wanted = folder / "whole"
    quiet([*line, "--out", str(wanted)])
    for who, victim in {"a server": lambda driver: _servers(driver)[0], "the driver": int}.items():
        out = folder / who.split()[-1]
        again = [*line, "--out", str(out)]
        servers = _kill([sys.executable, str(RUN_MANY), *again], victim, after=count // 3)
        end = time.monotonic() + 60
        while any(map(_alive, servers)) and time.monotonic() < end:
            time.sleep(_BLINK)
        left = sum(map(_alive, servers))
        quiet(again)
        same = _same(wanted, out)
        print(f"killed, {who}: {same} of {count} results equal those of an undisturbed run")
        print(f"        servers that outlived the run: {left}")
        _told_by_manifest(out)


def _same(wanted: Path, found: Path) -> int:
    """How many pictures of a folder another one holds too, byte for byte."""
    return sum(
        (found / path.name).is_file() and (found / path.name).read_bytes() == path.read_bytes()
        for path in wanted.glob("*.png")
    )


def _told_by_manifest(out: Path) -> None:
    records = [json.loads(text) for text in (out / "manifest.jsonl").read_text().splitlines()]
    done = [record["job"] for record in records if record.get("state") == "done"]
    again = [record for record in records if record.get("attempts")]
    kinds = sorted({attempt["kind"] for record in again for attempt in record["attempts"]})
    runs = [record.get("how", "begins") for record in records if "run" in record]
    twice = len(done) - len(set(done))
    print(f"        {len(list(out.glob('*.png')))} files; {len(done)} jobs done, {twice} twice")
    print(
        f"        {len(again)} jobs were tried again: {', '.join(kinds)}; runs: {', '.join(runs)}"
    )


# --- parts ------------------------------------------------------------------------------------


def _variation(folder: Path, count: int) -> list[str]:
    """Arguments for the miniature, small pictures and few steps, a thread each."""
    from image_to_prompt.workflows.demo_parts import miniature

    checkpoint, clip = miniature.wide_files(miniature.weights())
    for kind, file in (("checkpoints", checkpoint), ("clip_vision", clip)):
        (folder / "models" / kind).mkdir(parents=True)
        (folder / "models" / kind / file.name).symlink_to(file)
    miniature.training_pictures(folder / "photos", count)
    line = [str(VARIATION), "--images", str(folder / "photos"), "--cpu", "--threads", "1"]
    line += ["--models", str(folder / "models"), "--steps", "4", "--width", "64", "--height", "64"]
    line += ["--checkpoint", checkpoint.name]
    return [*line, "--clip-vision", clip.name, "--projection-file", clip.name]


def _scaled(folder: Path, count: int) -> list[str]:
    """Arguments for pictures that are only scaled."""
    from image_to_prompt.workflows.demo_parts import miniature

    miniature.training_pictures(folder / "photos", count)
    (folder / "graph.json").write_text(json.dumps(SCALED))
    line = [str(folder / "graph.json"), "--images", str(folder / "photos")]
    return [*line, "--cpu", "--threads", "1"]


def quiet(line: list[str]) -> None:
    """The command in a process of its own."""
    done = subprocess.run([sys.executable, str(RUN_MANY), *line], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)


def _first_job(line: list[str]) -> tuple[float, float]:
    """Seconds from the command to the server's first prompt, and CPU seconds beside the server."""
    out = Path(line[line.index("--out") + 1])
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, str(RUN_MANY), *line], stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            logs = (out / OWN).rglob("comfyui.log") if out.exists() else ()
            if any("got prompt" in log.read_text(errors="replace") for log in logs):
                return time.monotonic() - began, _processor_seconds(process.pid)
            time.sleep(_BLINK)
    finally:
        process.wait(300)
    raise RuntimeError("the command ended before its first job was seen")


def _processor_seconds(pid: int) -> float:
    """CPU seconds of a process and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS


def _kill(command: list[str], victim: Callable[[int], int], after: int) -> list[int]:
    """Kill a process of a run after so many of its jobs; the servers that it had then."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    done, servers, lines = 0, [], []
    for told in process.stderr or ():
        lines.append(told)
        done += told.startswith("worker")
        if done == after and not servers:
            servers = _servers(process.pid)
            os.kill(victim(process.pid), signal.SIGKILL)
    process.wait(300)
    if not servers:
        said = "".join(lines[-10:])
        sys.exit(f"killed: the run ended after {done} jobs, before anything was killed:\n{said}")
    return servers


def _servers(pid: int) -> list[int]:
    """The ComfyUIs below a process, below their guards."""
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True)
    below = []
    for child in map(int, found.stdout.split()):
        words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        below += [child] if b"main.py" in words[:3] else _servers(child)
    return below


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
