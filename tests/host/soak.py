"""Memory of one server over many prompts and refinements: python tests host.soak [MINUTES]

Prompts of many kinds (pictures, batches, lists, files loaded and saved, errors) and refinements
(finished, interrupted) run in turns on one real ComfyUI on the CPU, with small models of random
weights. What the server's process holds is read from the system after every block of them, as a
user sees it: nothing is collected, trimmed or cleared for the measurement. The host keeps every
prompt in its history; what that takes is told beside.

Printed are the slopes after the warm-up: least squares over the blocks, of memory on the numbers
of prompts and of refinements, with 95 % intervals by Newey and West (1987), since the errors of
neighbouring blocks are alike. Linux only.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy
from PIL import Image

from image_to_prompt.tests.host import soak_graphs
from image_to_prompt.tests.host.small_models import reference_clip
from image_to_prompt.workflows.api_client import client
from image_to_prompt.workflows.comfyui import hosts, server

PROMPTS, REFINEMENTS = 14, 3  # a block of each kind
LAGS = 4
LOADERS = ("LoadImageDataSetFromFolder", "LoadImageSetFromFolderNode")
SLOW = "no whole answer"
EXPECTED = ("numbers separated by commas", "Correct filename_prefix", "interrupted")


class Stopped(Exception):
    """Raised here to interrupt a refinement of the server."""


@dataclass
class Point:
    """What was done so far, and what the server's process holds, in MB."""

    seconds: float
    prompts: int
    refinements: int
    rss: float
    anonymous: float


class Soak:
    def __init__(self, url: str, process: int, base: Path) -> None:
        self.url, self.process, self.base = url, process, base
        loader = next(n for n in LOADERS if server.get_json(f"{url}/object_info/{n}"))
        self.graphs = soak_graphs.Prompts(loader)
        self.prompts = self.refinements = 0
        self.began = time.monotonic()
        self.points: list[Point] = []

    def block(self, refinements: bool) -> Point:
        for _ in range(REFINEMENTS if refinements else PROMPTS):
            self.refine() if refinements else self.prompt()
        folder = self.base / "models" / "projections" / "soak"
        self.graphs.saved = sorted(f"soak/{path.name}" for path in folder.glob("proj*"))[-20:]
        held = memory(self.process)
        seconds = time.monotonic() - self.began
        point = Point(seconds, self.prompts, self.refinements, held["VmRSS"], held["RssAnon"])
        self.points.append(point)
        return point

    def prompt(self) -> None:
        self.prompts += 1
        self.run(self.graphs.prompt(self.prompts))

    def refine(self) -> None:
        self.refinements += 1
        if self.refinements % 5:
            self.run(self.graphs.refinement(self.refinements))
        else:
            self.interrupted(self.graphs.long_refinement(self.refinements))

    def run(self, graph: dict) -> None:
        try:
            client.run(self.url, graph)
        except client.RunError as error:
            if not any(text in str(error) for text in (*EXPECTED, SLOW)):
                raise
            self.wait()

    def interrupted(self, graph: dict) -> None:
        steps = []

        def check() -> None:
            if steps:
                raise Stopped

        def progress(number: str, done: int, of: int) -> None:
            if graph[number]["class_type"] == "OnlineRefine" and done:
                steps.append(done)

        try:
            client.run(self.url, graph, progress, check)
        except Stopped:
            self.wait()

    def wait(self) -> None:
        """Until the server runs nothing; on a busy machine it may be slow to say so."""
        while True:
            try:
                if not server.get_json(f"{self.url}/queue")["queue_running"]:
                    return
            except client.RunError as error:
                if SLOW not in str(error):
                    raise
            time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("minutes", nargs="?", type=float, default=30.0)
    parser.add_argument("--warm-up", type=float, default=5.0, help="minutes that do not count")
    parser.add_argument(
        "--short", action="store_true", help="presets with one noisy picture a step: more of them"
    )
    parser.add_argument("--out", type=Path, help="JSON lines file: a line for each block")
    options = parser.parse_args()
    host = hosts.first()
    print(host, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        prepare(base)
        environment = {"SOAK_SHORT": "1"} if options.short else {}
        with server.start(host, base, environment=environment) as url:
            soak = Soak(url, process_of(url), base)
            repeat(soak, options)
            history = len(json.dumps(server.get_json(f"{url}/history"))) / 1e6
            print(f"the host's history as JSON: {history / soak.prompts * 100:.2f} MB per 100")
    report([p for p in soak.points if p.seconds > 60 * options.warm_up])


def repeat(soak: Soak, options: argparse.Namespace) -> None:
    """Blocks in turns, each told as it ends."""
    number = 0
    while time.monotonic() - soak.began < 60 * options.minutes:
        point = soak.block(refinements=number % 2 == 1)
        number += 1
        line = json.dumps(asdict(point))
        print(line, flush=True)
        if options.out:
            with options.out.open("a") as file:
                file.write(line + "\n")


def report(points: list[Point]) -> None:
    """Slopes with 95 % intervals."""
    if len(points) <= 2 * LAGS:
        sys.exit(f"{len(points)} blocks after the warm-up: too few for slopes")
    counts = numpy.array([[1.0, p.prompts, p.refinements] for p in points])
    last = points[-1]
    print(f"{len(points)} blocks after the warm-up; {last.prompts} prompts and ", end="")
    print(f"{last.refinements} refinements in all, {last.seconds / 60:.0f} minutes")
    for name in ("rss", "anonymous"):
        held = numpy.array([getattr(p, name) for p in points])
        slopes, errors = least_squares(counts, held)
        for text, index, factor in (("100 prompts", 1, 100), ("refinement", 2, 1)):
            value, half = factor * slopes[index], 1.96 * factor * errors[index]
            print(f"{name}: {value:+.3f} MB per {text} [{value - half:+.3f}, {value + half:+.3f}]")


def least_squares(x: numpy.ndarray, y: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Coefficients of y (n,) on x (n, k), and their standard errors by Newey and West (1987)."""
    inverse = numpy.linalg.inv(x.T @ x)
    coefficients = inverse @ x.T @ y
    moments = x * (y - x @ coefficients)[:, None]
    middle = moments.T @ moments
    for lag in range(1, LAGS + 1):
        shifted = moments[lag:].T @ moments[:-lag]
        middle += (1 - lag / (LAGS + 1)) * (shifted + shifted.T)
    return coefficients, numpy.sqrt(numpy.diag(inverse @ middle @ inverse))


def prepare(base: Path) -> None:
    """Small models' node, a CLIP file and pictures, where the host looks for them."""
    (base / "custom_nodes").mkdir(parents=True)
    models = Path(__file__).resolve().with_name("soak_models")
    (base / "custom_nodes" / models.name).symlink_to(models, target_is_directory=True)
    clip = base / "models" / "clip_vision" / soak_graphs.CLIP_FILE
    clip.parent.mkdir(parents=True)
    reference_clip(3).save_pretrained(base / "clip", safe_serialization=True)
    (base / "clip" / "model.safetensors").rename(clip)
    folder = base / "input" / soak_graphs.FOLDER
    folder.mkdir(parents=True)
    for number in range(soak_graphs.PICTURES):
        picture = Image.effect_noise((64 + 8 * number, 64), 60).convert("RGB")
        picture.save(base / "input" / f"soak{number}.png")
        if number < 3:
            picture.save(folder / f"{number}.png")


def process_of(url: str) -> int:
    """The server's own process, below its guard."""
    port = url.rpartition(":")[2].encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it has ended since
            continue
        if b"main.py" in words[:3] and port in words:
            return int(folder.name)
    raise RuntimeError(f"no process serves {url}")


def memory(process: int) -> dict[str, float]:
    """VmRSS and RssAnon of a process, in MB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    pairs = (line.split(":") for line in lines)
    return {k: int(v.split()[0]) / 1024 for k, v in pairs if k in ("VmRSS", "RssAnon")}


if __name__ == "__main__":
    main()
