"""The main job, on real photographs: python workflows/demo.py (or `make demo`).

Each reference picture becomes a prompt: three variations, an edit with a text, and the empty
prompt for comparison. With a ComfyUI on this machine it is started on the CPU and runs the API
workflows; without one the same `projection/` code runs with diffusers. The models are the
trained miniature, which needs a clone of the repository, or your own files:

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
    MissingError,
    Reference,
    photographs,
)

SEEDS = (1, 2, 3)
OUT = hosts.PACK / "build"
# The miniature draws 64 x 64; the rest is what it was trained and judged with.
MINIATURE = {"width": 64, "height": 64, "steps": 12, "cfg": 3.0, "KSampler.scheduler": "simple"}
MINIATURE_EDIT = ("a green star",)  # it knows the words of its own world only
ABOUT_PHOTOGRAPHS = """The miniature has only ever seen six shapes in eight colours. Of a
photograph it can keep what comes nearest: a round thing, a colour. For real photographs give it
real models: --checkpoint and --clip."""
NEEDS_A_CLONE = (
    "The miniature needs a clone of the repository (its folder tests/ is not here); "
    "give your own files by --checkpoint and --clip."
)
EDITS = ("in the snow", "an oil painting")

Job = tuple[str, int, str | None, float]  # label, seed, text (None: no edit), strength
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
    variations: list[Job] = [(f"variation {seed}", seed, None, 1.0) for seed in SEEDS]
    edits: list[Job] = [(f"+ {text}", SEEDS[0], text, 1.0) for text in reference.edits]
    return [*variations, *edits, ("empty prompt", SEEDS[0], None, 0.0)]


def make_rows(references: Sequence[Reference], make: Maker) -> list[grid.Row]:
    """The grid's rows: the reference, then its jobs."""
    rows: list[grid.Row] = []
    for reference in references:
        print(f"  {reference.name}", flush=True)
        made = [(job[0], make(reference, job)) for job in jobs_of(reference)]
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
    workflows = [run.load_workflow(folder / f"{name}.json") for name in ("variation", "edit")]
    empty: list[Path] = []  # the same for every reference, so made once

    with server.start(host, base, cpu=cpu) as url:

        def make(reference: Reference, job: Job) -> Path:
            _, seed, text, strength = job
            if strength == 0 and empty:
                return empty[0]
            given = {**settings, "seed": seed, "strength": strength}
            texts = [] if text is None else [text]
            [path] = run.run_workflow(
                url, workflows[bool(texts)], OUT / "demo", [reference.path], texts, given
            )
            if strength == 0:
                empty.append(path)
            return path

        return make_rows(references, make)


def own_references() -> list[Reference]:
    """Photographs, for the user's own model files."""
    return photographs(PHOTOGRAPHS, EDITS, OUT / "demo" / "references")


def miniature_references() -> list[Reference]:
    """Pictures of the miniature's own world, and photographs."""
    from image_to_prompt.workflows.demo_parts import miniature

    folder = OUT / "demo" / "references"
    foreign = photographs(PHOTOGRAPHS[1:3], MINIATURE_EDIT, folder)
    return miniature.world_pictures(folder) + foreign


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
    references, source = miniature_references(), miniature.weights()
    settings = dict(MINIATURE)
    if arguments.steps is not None:
        settings["steps"] = arguments.steps
    if host is not None:
        files = Files(*miniature.wide_files(source), str(source), settings)
        return _on_host(references, files, host, arguments), files.told, f"in {host}"
    print(f"Models: {source}.\n{demo_alone.DIFFERENCES}")
    make = demo_alone.maker(source, OUT / "demo", int(str(settings["steps"])))
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
        path = grid.draw(rows, OUT / "demo.png", f"Image-to-Prompt, {told}")
    except (client.RunError, hosts.HostError, InputsError, MissingError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    if not own:
        print(ABOUT_PHOTOGRAPHS)
    print(f"Done {where} in {time.monotonic() - began:.0f} s: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
