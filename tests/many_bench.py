"""Measures a collection's engine and embedding: python tests many_bench [PART ...]

    overhead   jobs of 2 s on one stand-in server: what the engine adds to them
    scaling    jobs of 0.5 s on 1, 2, 4 and 8 stand-in servers, which wait and do not compute
    host       the miniature on one real server and on two, each with one core (needs ComfyUI)
    start      what is between the command and the first job, beside a real server's own start
    killed     64 pictures on two real servers: kill -9 of one; in another run, of the driver
    embedding  1,000 pictures against a bare batched encode of them, and memory at 1,000 and 4,000
    curve      a simulated curve for GPUs and machines, from the numbers given by its options

Ratios are of runs that follow each other: let nothing else run meanwhile. The load average is
printed with them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from image_to_prompt.tests import many_real
from image_to_prompt.tests.workflows.many import stand_in
from image_to_prompt.tests.workflows.many.conftest import GRAPH
from image_to_prompt.workflows.comfyui import hosts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", help=", ".join(PARTS))
    parser.add_argument("--pictures", type=int, default=16, help="of host and killed")
    parser.add_argument("--repeats", type=int, default=3, help="of start")
    parser.add_argument("--seconds", type=float, default=2.0, help="curve: of one job on a GPU")
    parser.add_argument("--megabytes", type=float, default=3.0, help="curve: in and out of a job")
    parser.add_argument("--network", type=float, default=100.0, help="curve: driver, MB a second")
    parser.add_argument("--driver", type=float, default=0.01, help="curve: its seconds a job")
    options = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for part in options.parts or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            PARTS[part](Path(folder), options)


def overhead(folder: Path, _: argparse.Namespace) -> None:
    jobs, pause = 10, 2.0
    first, whole = _stand_in(folder, jobs, 1, pause)
    print(f"overhead: {100 * (whole / (jobs * pause) - 1):.1f} % of {jobs} jobs of {pause:g} s")
    print(f"          {first:.1f} s from the command to the end of the first job's wait")


def scaling(folder: Path, _: argparse.Namespace) -> None:
    jobs, pause = 64, 0.5
    alone = 0.0
    for workers in (1, 2, 4, 8):
        _, whole = _stand_in(folder / str(workers), jobs, workers, pause)
        alone = alone or whole
        print(f"scaling: {workers} servers {whole:.1f} s, {alone / whole:.2f} x one")


def _stand_in(folder: Path, jobs: int, workers: int, pause: float) -> tuple[float, float]:
    """Seconds to the first job, less its wait, and of all jobs behind the first one's start."""
    host, images = folder / "host", folder / "photos"
    for part in (host / "comfy", host / "models", images):
        part.mkdir(parents=True)
    shutil.copyfile(stand_in.__file__, host / "main.py")
    (folder / "graph.json").write_text(json.dumps(GRAPH))
    for number in range(jobs):
        (images / f"{number}.png").write_bytes(str(number).encode())
    os.environ |= {"COMFYUI_PYTHON": sys.executable, "STAND_IN_PAUSE": str(pause)}
    line = [str(folder / "graph.json"), "--images", str(images), "--out", str(folder / "out")]
    began = time.time()
    many_real.quiet([*line, "--host", str(host), "--cpu", "--workers", str(workers)])
    files = sorted(path.stat().st_mtime for path in (folder / "out").glob("*.png"))
    return files[0] - began - pause, files[-1] - files[0] + pause


def embedding(folder: Path, _: argparse.Namespace) -> None:
    """A random CLIP; memory is that of a fresh process for each size."""
    _noise(folder / "photos", 4000)
    for count, compare in ((1000, True), (1000, False), (4000, False)):
        code = f"from image_to_prompt.tests import many_bench as b; b.embedded({count}, {compare})"
        path = hosts.PACK / "workflows" / "checkout.py"
        start = f"import runpy; runpy.run_path({str(path)!r}); {code}"
        environment = os.environ | {"TRANSFORMERS_VERBOSITY": "error"}
        subprocess.run([sys.executable, "-c", start], check=True, cwd=folder, env=environment)


def embedded(count: int, compare: bool) -> None:
    """One line: seconds against a bare encode, or the highest memory."""
    import torch

    from image_to_prompt.projection import from_clip_model
    from image_to_prompt.projection.collections.embedding import BatchEmbedder
    from image_to_prompt.projection.integrations.transformers_clip import image_embeds
    from image_to_prompt.workflows.many.embedding import collect

    batch, (clip, decode) = 50, _clip()
    projection = from_clip_model(clip)
    paths = sorted(Path("photos").iterdir())[:count]

    def bare(at: int) -> None:
        pixels = torch.stack([decode(path.read_bytes()) for path in paths[at : at + batch]])
        projection.apply(image_embeds(clip, pixels)).half()

    made = BatchEmbedder(decode, lambda pixels: image_embeds(clip, pixels), projection, batch)
    ours = collect.here(((path.name, path) for path in paths), made)
    if not compare:
        for _ in ours:
            pass
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"embedding: {count} pictures, at most {memory:.0f} MB of memory")
        return
    bare(0)  # warm
    ratios, sums = [], [0.0, 0.0]
    for at in range(0, count, batch):
        taken = _taken((lambda: next(ours), lambda at=at: bare(at)), turned=at // batch % 2 == 1)
        ratios.append(taken[0] / taken[1])
        sums = [one + other for one, other in zip(sums, taken, strict=True)]
    low, middle, high = _median(ratios)
    print(
        f"embedding: {count} pictures, {sums[0]:.1f} s of CPU against {sums[1]:.1f} s of a bare "
        f"encode, {sums[0] / sums[1]:.3f}; {len(ratios)} pairs of batches: median {middle:.3f} "
        f"[{low:.3f}, {high:.3f}], worst {max(ratios):.3f}"
    )


def _taken(actions: tuple[Callable[[], object], ...], turned: bool) -> list[float]:
    """CPU seconds of each action, which other processes do not lengthen; turned: last one first."""
    taken = [0.0] * len(actions)
    order = list(enumerate(actions))
    for index, action in reversed(order) if turned else order:
        began = time.process_time()
        action()
        taken[index] = time.process_time() - began
    return taken


def _median(values: list[float]) -> tuple[float, float, float]:
    """A median with its 95 % interval: the order statistics that hold it, by the binomial law."""
    ordered, count = sorted(values), len(values)
    tails = [sum(math.comb(count, k) for k in range(n + 1)) / 2**count for n in range(count)]
    edge = max((n for n, tail in enumerate(tails[: count // 2]) if tail <= 0.025), default=0)
    return ordered[edge], statistics.median(ordered), ordered[count - 1 - edge]


def _clip():  # type: ignore[no-untyped-def]
    import torch
    import transformers

    from image_to_prompt.tests.fixtures import builders
    from image_to_prompt.workflows.many.embedding import encoder

    layers = {"num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024}
    config = transformers.CLIPConfig(
        text_config={"hidden_size": 64, "vocab_size": 100, "projection_dim": 64} | layers,
        vision_config={"hidden_size": 256, "image_size": 64, "patch_size": 16} | layers,
        projection_dim=64,
    )
    clip = transformers.CLIPModel(config).eval()
    with torch.no_grad():
        clip.text_projection.weight.copy_(builders.text_projection(64))
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": 64}, crop_size=64)
    return clip, encoder._decoder(processor)


def _noise(folder: Path, count: int) -> None:
    import torch
    from PIL import Image

    folder.mkdir()
    for number in range(count):
        noise = torch.randint(0, 256, (96, 96, 3), dtype=torch.uint8)
        Image.fromarray(noise.numpy()).save(folder / f"{number:05}.png", compress_level=1)


def curve(_: Path, options: argparse.Namespace) -> None:
    """Rates of a closed system: each worker has one job; the driver serves one job at a time.

    A job takes `seconds` on its GPU, then the driver for its own work and for its bytes.
    """
    serial = options.driver + options.megabytes / options.network
    print(f"curve: job {options.seconds:g} s, driver {serial:.3f} s a job; GPUs, jobs a minute, x")
    for gpus in (1, 2, 4, 8, 16, 32, 40, 64, 80, 128):
        rate = _simulated(gpus, options.seconds, serial)
        print(f"  {gpus:4} {60 * rate:8.1f} {rate * (options.seconds + serial):6.1f}")


def _simulated(gpus: int, seconds: float, serial: float, jobs: int = 4000) -> float:
    """Jobs a second: the driver takes ended jobs in the order of their ends."""
    import heapq

    ends = [seconds * (1 + number / gpus) for number in range(gpus)]
    free = 0.0
    heapq.heapify(ends)
    for _ in range(jobs):
        free = max(free, heapq.heappop(ends)) + serial
        heapq.heappush(ends, free + seconds)
    return jobs / free


PARTS = {
    "overhead": overhead,
    "scaling": scaling,
    "host": many_real.host,
    "start": many_real.start,
    "killed": many_real.killed,
    "embedding": embedding,
    "curve": curve,
}

if __name__ == "__main__":
    main()
