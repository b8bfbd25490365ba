"""Runs every test: here, and inside each ComfyUI that is found. Called by `make test`.

A host's tests need the host's own packages, so they run in its Python, with pytest added in an
environment of ours under build/ that only borrows the host's packages and never changes them.
Several hosts share the cores and run at the same time; what they say comes when all have ended.
The last lines say what passed, and what could not be run and why.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO

from image_to_prompt.tests import lint
from image_to_prompt.workflows.comfyui import hosts

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "tests"
HOST = "IMAGE_TO_PROMPT_HOST"  # names the host's folder to tests/host


@dataclass
class Result:
    """Counts of one pytest run."""

    where: str
    passed: int
    failed: int
    skipped: dict[str, int]

    def __str__(self) -> str:
        line = f"{self.where}: {self.passed} passed, {self.failed} failed"
        return line + "".join(f"\n    {n} not run: {why}" for why, n in self.skipped.items())


def main(arguments: list[str]) -> int:
    BUILD.mkdir(parents=True, exist_ok=True)
    # A shell lets what it starts behind it ignore Control-C, and tests of Control-C inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    search = hosts.search()
    lint_failed = lint.main() != 0
    # Where a host exists its tests run inside it; without one they are all skipped and counted.
    here = ["tests", "--ignore=tests/host"] if search.hosts else ["tests"]
    results = [run("without ComfyUI", sys.executable, [*here, *arguments])]
    results += run_hosts(search.hosts, ["tests/host", *arguments])
    print("\n" + "\n".join(str(result) for result in results))
    for problem in search.problems:
        print(f"Host tests could not be run: {problem}")
    failed = sum(result.failed for result in results) + lint_failed
    passed = sum(result.passed for result in results)
    skipped = sum(sum(result.skipped.values()) for result in results)
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return 1 if failed or not passed else 0


def run_hosts(found: Sequence[hosts.Host], arguments: list[str]) -> list[Result]:
    """The same tests inside each host: one as it goes, several at once on equal shares of cores."""
    pythons = [borrowing_environment(host) for host in found]
    if len(found) < 2:
        return [
            run(str(host), python, arguments, {HOST: str(host.folder)})
            for host, python in zip(found, pythons, strict=True)
        ]
    threads = str(max(1, (os.cpu_count() or 1) // len(found)))
    logs = [BUILD / f"{host.version}-{place}.log" for place, host in enumerate(found)]
    print(f"\ntests in {len(found)} ComfyUIs; see {', '.join(map(str, logs))}", flush=True)

    def one(host: hosts.Host, python: Path, log: Path) -> Result:
        settings = {HOST: str(host.folder), "OMP_NUM_THREADS": threads}
        with log.open("w", encoding="utf-8") as out:
            return run(str(host), python, arguments, settings, out)

    with ThreadPoolExecutor(len(found)) as pool:
        results = list(pool.map(one, found, pythons, logs))
    for host, log in zip(found, logs, strict=True):
        print(f"\n=== {host}\n{log.read_text(encoding='utf-8', errors='replace')}", flush=True)
    return results


def run(
    where: str,
    python: str | Path,
    arguments: list[str],
    settings: Mapping[str, str] = MappingProxyType({}),
    out: IO[str] | None = None,
) -> Result:
    """One pytest run, shown as it goes or written to `out`; one that dies counts as a failure."""
    report = BUILD / f"{re.sub(r'[^A-Za-z0-9.]+', '-', where)}.xml"
    report.unlink(missing_ok=True)
    command = [str(python), "-m", "pytest", "-q", f"--junitxml={report}", *arguments]
    # pytest would keep the files of three runs, and wide models are gigabytes.
    with tempfile.TemporaryDirectory(prefix="image-to-prompt-", ignore_cleanup_errors=True) as base:
        finished = subprocess.run(
            [*command, f"--basetemp={base}"],
            cwd=ROOT,
            env={**os.environ, **settings},
            stdout=out,
            stderr=out,
        )
        free = shutil.disk_usage(base).free / 1e9
    try:
        result = read_report(where, report)
    except (OSError, ElementTree.ParseError) as error:
        print(f"{where}: no report ({error}); {free:.1f} GB of disk were free", flush=True)
        return Result(where, 0, 1, {})
    if finished.returncode not in (0, 1) and not result.failed:
        result.failed = 1  # pytest itself broke, or found nothing to run
    return result


def read_report(where: str, report: Path) -> Result:
    suite = ElementTree.parse(report).getroot().find("testsuite")
    total, failures, errors, skips = (
        int(suite.get(key)) for key in ("tests", "failures", "errors", "skipped")
    )
    reasons: dict[str, int] = {}
    for skip in suite.iter("skipped"):
        reason = skip.get("message", "no reason given")
        reasons[reason] = reasons.get(reason, 0) + 1
    failed = failures + errors
    return Result(where, total - failed - skips, failed, reasons)


def borrowing_environment(host: hosts.Host) -> Path:
    """A Python that sees the host's packages, with the test extra installed beside them."""
    folder = BUILD / f"python-{re.sub(r'[^A-Za-z0-9]+', '-', str(host.folder)).strip('-')}"
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    ready = folder / "ready"
    if ready.exists():
        return python
    subprocess.run([str(host.python), "-m", "venv", "--clear", str(folder)], check=True)
    (site_packages(python)[0] / "host.pth").write_text(
        "\n".join(str(path) for path in site_packages(host.python)) + "\n"
    )
    wanted = [
        requirement.split(";")[0].strip()
        for requirement in importlib.metadata.requires("image-to-prompt") or []
        if re.search(r"extra == ['\"]host-test['\"]", requirement)
    ]
    install = [str(python), "-m", "pip", "install", "--quiet", *wanted]
    subprocess.run(install, check=True)
    ready.touch()
    return python


def site_packages(python: str | Path) -> list[Path]:
    """The package folders on a Python's path, those of its .pth files included."""
    code = "import sys; print(*[p for p in sys.path if p.endswith('-packages')], sep='\\n')"
    found = subprocess.run(
        [str(python), "-c", code], check=True, capture_output=True, text=True, cwd=BUILD
    )
    return [Path(line) for line in found.stdout.splitlines()]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
