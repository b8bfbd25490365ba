"""The work of workflows/embed_many.py. What it needs is imported after its options are read."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..jobs import from_folder
from ..missing import require
from ..results.folder import Folder

_ROWS = 1000  # of one file


def run(options: argparse.Namespace) -> int:
    """Embed what is missing; 1 if a file is broken. Raises what the parts raise."""
    for module in ("pyarrow", "torch", "transformers", "PIL"):
        require(module, "embedding a collection")
    with Folder(options.out).held():
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    from .encoder import Choice
    from .rows import Rows

    device = "cpu" if options.cpu else None
    choice = Choice(options.clip, options.projection, options.batch_size, device)
    rows = Rows(options.out, choice.settings())
    there = rows.names()
    jobs = list(from_folder(options.images))
    files = [(job.name, job.images[0].resolve()) for job in jobs if job.name not in there]
    began, done, broken, tables = time.monotonic(), 0, 0, []
    try:
        for found in _found(options, choice, files) if files else ():
            for name, error in zip(found["name"], found["error"], strict=True):
                if error:
                    print(f"{name}: {error}", file=sys.stderr)
                    broken += 1
            tables.append(rows.table(found))
            done += len(found["name"])
            if sum(len(table) for table in tables) >= _ROWS:
                rows.write(tables)
                tables = []
    finally:  # what an interrupt finds done is kept
        if tables:
            rows.write(tables)
    if options.files is not None:
        _write_files(rows, choice, options.files)
    seconds = time.monotonic() - began
    print(f"{done - broken} of {len(jobs)} embedded in {seconds:.0f} s", file=sys.stderr)
    if there:
        print(f"{len(jobs) - len(files)} were done before", file=sys.stderr)
    if broken:
        print(f"{broken} broken", file=sys.stderr)
    return 1 if broken else 0


def _write_files(rows: Any, choice: Any, folder: Path) -> None:
    from .prompt_files import write_prompts

    written = write_prompts(rows.embeddings(), choice.loaded_projection(), folder)
    print(f"{written} prompt files written to {folder}", file=sys.stderr)


def _found(options: argparse.Namespace, choice: Any, files: list) -> Iterator[dict[str, Any]]:
    from image_to_prompt.workflows.comfyui.hosts import PACK

    from . import collect

    if options.address or options.engine == "ray":
        pack, size = options.pack or PACK, options.batch_size
        return collect.on_cluster(files, choice.make, size, options.address, pack, options.cpu)
    return collect.here(files, choice.make(), 2 if choice.on_gpu else 0)
