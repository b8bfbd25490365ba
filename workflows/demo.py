"""The main job: python workflows/demo.py (or `make demo`).

Each reference picture becomes a prompt: three variations, edits with a text, and the empty prompt
for comparison; on the first one Online Refine trains as well. With a ComfyUI on this machine it
is started on the CPU and runs the API workflows; without one the same `projection/` code runs with
diffusers. The models are a small SD 1.5 trained on emoji, which needs a clone of the repository
and draws its references itself from captions, or your own files with photographs:

    python workflows/demo.py --checkpoint v1-5.safetensors --clip clip-vit-large-patch14.safetensors
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

if not __package__:
    import checkout  # noqa: F401  makes the next lines work for a script

from image_to_prompt.workflows import run
from image_to_prompt.workflows.api_client import client
from image_to_prompt.workflows.api_client.inputs import InputsError
from image_to_prompt.workflows.comfyui import hosts, server
from image_to_prompt.workflows.demo_parts import grid
from image_to_prompt.workflows.demo_parts.demo_assets import (
    PHOTOGRAPHS,
    Job,
    MissingError,
    Reference,
    photographs,
)

SEEDS = (1, 2, 3)
OUT = hosts.PACK / "build"
# The miniature draws 96 x 96; the rest is what it was trained and judged with.
MINIATURE = {"width": 96, "height": 96, "steps": 12, "cfg": 3.0, "KSampler.scheduler": "simple"}
TEXT_WEIGHT = 1.0  # of the edits; the paper's 0.6 often keeps the old ground
REFINE_STEPS = 10  # 30 by default: a third shows the place and the hand, in less time
TITLE = "Image-to-Prompt: the picture on the left is the whole prompt of its row"
NEEDS_A_CLONE = (
    "The miniature needs a clone of the repository (its folder tests/ is not here); "
    "give your own files by --checkpoint and --clip."
)
EDITS = ("in the snow", "an oil painting")

Maker = Callable[[Reference, Job], Path]


@dataclass(frozen=True)
class Files:
    """Model files, the settings they need, and what to tell of them."""

    checkpoint: Path
    clip: Path
    told: str
    settings: dict[str, object] = field(default_factory=dict)


def jobs_of(reference: Reference) -> list[Job]:
    """Everything that is made from one reference, in the order of the grid's columns."""
    variations = [Job(f"variation {seed}", seed) for seed in SEEDS]
    edits = [Job(f"+ {text}", SEEDS[0], text) for text in reference.edits]
    return [*variations, *edits, Job("empty prompt", SEEDS[0], strength=0.0)]


def refined_jobs_of(reference: Reference) -> list[Job]:
    """The variations after Online Refine."""
    return [Job(f"refined, variation {seed}", seed, refined=True) for seed in SEEDS]


def make_rows(references: Sequence[Reference], make: Maker) -> list[grid.Row]:
    """The grid's rows: the reference, then its jobs; refined variations in rows of their own."""
    rows: list[grid.Row] = []
    tasks = [(reference, jobs_of(reference)) for reference in references]
    tasks += [(one, refined_jobs_of(one)) for one in references if one.refined]
    for reference, jobs in tasks:
        print(f"  {reference.name}{', refined' * jobs[0].refined}", flush=True)
        made = [(job.label, make(reference, job)) for job in jobs]
        rows.append([(reference.name, reference.path), *made])
    return rows


def settings_of(files: Files, base: Path) -> dict[str, object]:
    """What to fill into a workflow, with the files placed where a host on `base` sees them."""
    return {
        "checkpoint": server.place(base, "checkpoints", files.checkpoint),
        "clip_vision": server.place(base, "clip_vision", files.clip),
        "projection_file": files.clip.name,
        **files.settings,
    }


def on_host(
    references: Sequence[Reference], files: Files, host: hosts.Host, cpu: bool = True
) -> list[grid.Row]:
    """The rows, by the API workflows on a host started for it."""
    base = run.BASES / f"demo-{host.folder.name}"
    settings = settings_of(files, base)
    folder = hosts.PACK / "workflows" / "api"
    names = ("variation", "edit", "refine_and_vary")
    workflows = {name: run.load_workflow(folder / f"{name}.json") for name in names}
    empty: list[Path] = []  # the same for every reference, so made once

    with server.start(host, base, cpu=cpu) as url:

        def make(reference: Reference, job: Job) -> Path:
            if job.strength == 0 and empty:
                return empty[0]
            name = "refine_and_vary" if job.refined else "variation" if job.text is None else "edit"
            given = {**settings, "seed": job.seed, "strength": job.strength}
            if job.refined:
                given["OnlineRefine.steps"] = REFINE_STEPS
            texts = [] if job.text is None else [job.text]
            [path] = run.run_workflow(
                url, workflows[name], OUT / "demo", [reference.path], texts, given
            )
            if job.strength == 0:
                empty.append(path)
            return path

        return make_rows(references, make)


def own_references() -> list[Reference]:
    """Photographs, for the user's own model files."""
    return photographs(PHOTOGRAPHS, EDITS, OUT / "demo" / "references")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, help="an SD 1.x checkpoint of yours")
    parser.add_argument("--clip", type=Path, help="clip-vit-large-patch14's model.safetensors")
    parser.add_argument("--steps", type=int, help="sampling steps")
    parser.add_argument("--host", type=Path, help="folder of the ComfyUI to use")
    parser.add_argument("--no-host", action="store_true", help="without ComfyUI")
    parser.add_argument("--gpu", action="store_true", help="let ComfyUI use its graphics card")
    arguments = parser.parse_args(argv)
    own = (arguments.checkpoint, arguments.clip)
    if any(own) and not all(own):
        parser.error("--checkpoint and --clip belong together")
    for path in filter(None, own):
        if not path.is_file():
            parser.error(f"{path} does not exist")
    if any(own) and arguments.no_host:
        parser.error("your own files need a ComfyUI; without one only the miniature runs")
    return arguments


def _host(arguments: argparse.Namespace) -> hosts.Host | None:
    """The host to use; None, with the reason told, where there is none."""
    if arguments.no_host:
        return None
    if arguments.host:
        return hosts.host_in(arguments.host)
    found = hosts.search()
    if not found.hosts and arguments.checkpoint:
        raise hosts.HostError("\n".join([*found.problems, "Your own files need a ComfyUI."]))
    for problem in found.problems if not found.hosts else ():
        print(problem)
    return found.hosts[0] if found.hosts else None


def with_own_files(arguments: argparse.Namespace) -> tuple[list[grid.Row], str, str]:
    """Rows by the user's own files, the files' description, and where they were made."""
    host = _host(arguments)
    if host is None:
        raise hosts.HostError("Your own files need a ComfyUI.")
    steps = {} if arguments.steps is None else {"steps": arguments.steps}
    files = Files(arguments.checkpoint, arguments.clip, "your own files", steps)
    return _on_host(own_references(), files, host, arguments), files.told, f"in {host}"


def with_miniature(arguments: argparse.Namespace) -> tuple[list[grid.Row], str, str]:
    """Rows by the miniature, its description, and where they were made."""
    if not (hosts.PACK / "tests" / "miniature").is_dir():
        raise MissingError(NEEDS_A_CLONE)
    from image_to_prompt.workflows.demo_parts import demo_alone, miniature

    host = _host(arguments)
    source = miniature.weights()
    references = miniature.world_pictures(OUT / "demo" / "references", source)
    settings = MINIATURE | {"text_weight": TEXT_WEIGHT}
    if arguments.steps is not None:
        settings["steps"] = arguments.steps
    if host is not None:
        files = Files(*miniature.wide_files(source), str(source), settings)
        return _on_host(references, files, host, arguments), files.told, f"in {host}"
    print(f"Models: {source}.\n{demo_alone.DIFFERENCES}")
    make = demo_alone.maker(source, OUT / "demo", settings | {"refine_steps": REFINE_STEPS})
    return make_rows(references, make), str(source), "without ComfyUI"


def _on_host(
    references: Sequence[Reference], files: Files, host: hosts.Host, arguments: argparse.Namespace
) -> list[grid.Row]:
    print(f"Models: {files.told}.\nStarting {host}.", flush=True)
    return on_host(references, files, host, not arguments.gpu)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parse(argv)
    began = time.monotonic()
    own = arguments.checkpoint is not None
    try:
        with server.ended_by_sigterm():
            rows, told, where = (with_own_files if own else with_miniature)(arguments)
        path = grid.draw(rows, OUT / "demo.png", f"{TITLE} ({told})")
    except (client.RunError, hosts.HostError, InputsError, MissingError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Done {where} in {time.monotonic() - began:.0f} s: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
