"""Embeds the pictures of a folder: here, with files read ahead, or on a Ray cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from image_to_prompt.projection.collections.embedding import BatchEmbedder, batches, embed

from ..missing import require
from ..signals import sigterm_kept

File = tuple[str, Path]


def here(
    files: Iterable[File], embedder: BatchEmbedder, ahead: int = 0
) -> Iterator[dict[str, Any]]:
    """Rows of these files, batch by batch.

    ahead: batches that are decoded while a GPU encodes another one. An encoder on the CPU leaves
    no core for that.
    """
    if not ahead:
        yield from embed(batches(map(_row, files), embedder.batch_size), lambda: embedder)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="decode") as pool:
        waiting: list[Future] = []
        for batch in batches(map(_row, files), embedder.batch_size):
            waiting.append(pool.submit(embedder.decoded, batch))
            if len(waiting) > ahead:
                yield embedder.embedded(waiting.pop(0).result())
        for future in waiting:
            yield embedder.embedded(future.result())


def on_cluster(
    files: Iterable[File], make: Any, batch_size: int, address: str | None, pack: Path, cpu: bool
) -> Iterator[dict[str, Any]]:
    """The same from a Ray cluster: files are read there, so that their paths must hold there.

    pack: this pack's folder on the machines.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray, data = require("ray", "a Ray cluster"), require("ray.data", "a Ray cluster")
    script = str(pack / "workflows" / "checkout.py")

    def importable() -> None:
        import runpy

        runpy.run_path(script)

    hook = {"worker_process_setup_hook": importable}
    with sigterm_kept():
        ray.init(address=address, runtime_env=hook, logging_level="warning", log_to_driver=False)
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    try:
        places = int(ray.cluster_resources().get("CPU" if cpu else "GPU", 0))
        names = [{"name": name, "path": str(path)} for name, path in files]
        dataset = data.from_items(names).map(_content)
        needs = {"num_cpus": 1} if cpu else {"num_gpus": 1}
        workers = max(1, places - 1 if cpu else places)  # a core is left to read files
        rows = embed(dataset, make, batch_size=batch_size, concurrency=workers, **needs)
        yield from rows.iter_batches(batch_size=batch_size, batch_format="numpy")
    finally:
        ray.shutdown()


def _row(file: File) -> dict[str, Any]:
    return _content({"name": file[0], "path": str(file[1])})


def _content(row: dict[str, Any]) -> dict[str, Any]:
    """A file's content; nothing, which no decoder takes for an image, if it cannot be read."""
    try:
        content = Path(row["path"]).read_bytes()
    except OSError:
        content = b""
    return {"name": row["name"], "bytes": content}
