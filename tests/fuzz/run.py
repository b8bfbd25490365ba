"""Tries generated inputs on the functions, and on the nodes in a ComfyUI. Called by `make fuzz`.

    python tests fuzz.run [N] [SEED]

A third of the inputs goes to the nodes where a ComfyUI is found. Exit code 1 if any input ended
raw, silent or hanging.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from image_to_prompt.tests.fuzz.judge import try_all
from image_to_prompt.tests.fuzz.kinds import KINDS
from image_to_prompt.tests.run_all import BUILD, ROOT, borrowing_environment
from image_to_prompt.workflows.comfyui import hosts


def main(arguments: list[str]) -> int:
    count, seed = (*(int(a) for a in arguments), *(10_000, 1)[len(arguments) :])[:2]
    BUILD.mkdir(parents=True, exist_ok=True)
    found = hosts.search().hosts
    in_host = count // 3 if found else 0
    with tempfile.TemporaryDirectory() as folder:
        report = try_all(KINDS, count - in_host, seed, Path(folder))
    print(report, flush=True)
    return int(bool(report.bad) | (in_host > 0 and in_nodes(found[0], in_host, seed) != 0))


def in_nodes(host: hosts.Host, count: int, seed: int) -> int:
    """Try inputs on the nodes inside a host's own process; pytest's exit code."""
    given = {"IMAGE_TO_PROMPT_HOST": str(host.folder), "FUZZ_N": str(count), "FUZZ_SEED": str(seed)}
    python = borrowing_environment(host)
    command = [str(python), "-m", "pytest", "-q", "-s", "tests/host/test_fuzz_nodes.py"]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **given}).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
