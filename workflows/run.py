"""Runs an API workflow on ComfyUI, without its page.

    python workflows/run.py workflows/api/edit.json --image cat.png --text "in the snow" --seed 1

Uses the ComfyUI at --server, or else one that listens on port 8188; failing that it starts the
one at --host, or the first it finds, on the CPU, without writing into its folder. Exit code 1
if the server refuses the workflow or a node fails; the message is the server's own.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

if not __package__:
    import checkout  # noqa: F401  makes the next lines work for a script

from image_to_prompt.workflows.comfyui import client, hosts, server
from image_to_prompt.workflows.comfyui.inputs import SETTINGS, FillError, fill, parsed

USUAL_SERVER = "http://127.0.0.1:8188"
BASES = hosts.PACK / "build" / "comfy"
_NUMBERS = {"seed": int, "steps": int, "width": int, "height": int}
_NUMBERS |= {"cfg": float, "text_weight": float, "strength": float}


def run_workflow(
    url: str,
    workflow: dict,
    out: Path,
    images: Sequence[Path] = (),
    texts: Sequence[str] = (),
    settings: dict[str, object] | None = None,
    progress: client.Progress = lambda *_: None,
) -> list[Path]:
    """Run an API workflow on the server at `url`; the pictures it made, saved into `out`.

    images, texts, settings: see `fill`. Raises FillError, client.RunError, OSError.
    """
    fill(workflow, [image.name for image in images], texts, settings)  # before any upload
    names = [client.upload(url, image) for image in images]
    entry = client.run(url, fill(workflow, names, texts, settings), progress)
    return client.fetch_images(url, entry, out)


def load_workflow(path: Path) -> dict:
    """An API workflow from its file. Raises FillError for anything else."""
    try:
        graph = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FillError(f"{path}: {error}") from error
    if isinstance(graph, dict) and "nodes" in graph:
        raise FillError(
            f"{path} is in the page's format. Take its twin in workflows/api, or export it with "
            "Workflow > Export (API)."
        )
    if not isinstance(graph, dict) or not all(
        isinstance(node, dict) and "class_type" in node and isinstance(node.get("inputs"), dict)
        for node in graph.values()
    ):
        raise FillError(f"{path} is not a workflow in API format")
    return graph


@contextmanager
def reach(
    url: str | None, host: Path | None, models: Sequence[Path] = (), cpu: bool = True
) -> Iterator[str]:
    """The address of a ComfyUI: one that runs, else one started for the while of the block."""
    if url is None and host is None and _answers(USUAL_SERVER):
        url = USUAL_SERVER
    if url is not None:
        yield url.rstrip("/")
        return
    chosen = hosts.host_in(host) if host else hosts.first()
    print(f"starting {chosen}", file=sys.stderr)
    with server.start(chosen, BASES / chosen.folder.name, models, cpu) as started:
        yield started


def show_progress(graph: dict) -> client.Progress:
    """Prints a line for each node, and on a terminal counts its steps in place."""
    counted = sys.stderr.isatty()

    def show(number: str, done: int, of: int) -> None:
        name = f"{number} {graph[number]['class_type']}"
        if of and counted:
            print(f"\r  {name} {done}/{of}\033[K", end="\n" if done == of else "", file=sys.stderr)
        elif not of:
            print(f"  {name}", file=sys.stderr)

    return show


def _answers(url: str) -> bool:
    try:
        return "system" in server.get_json(f"{url}/system_stats", seconds=2)
    except (OSError, ValueError):
        return False


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workflow", type=Path, help="a file of workflows/api")
    parser.add_argument(
        "--image", type=Path, action="append", default=[], help="one per LoadImage node, in order"
    )
    parser.add_argument(
        "--text", action="append", default=[], help="for ImageToPromptEmbed nodes, in order"
    )
    for name, place in SETTINGS.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=_NUMBERS.get(name, str), help=f"sets {place}")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NODE.INPUT=VALUE",
        help="any other value, by node number or class",
    )
    parser.add_argument("--out", type=Path, default=Path("output"), help="folder for the pictures")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--server", metavar="URL", help="a running ComfyUI")
    where.add_argument("--host", type=Path, help="folder of a ComfyUI to start")
    parser.add_argument(
        "--models",
        type=Path,
        action="append",
        default=[],
        help="for a started ComfyUI: a further folder laid out as its models/",
    )
    parser.add_argument("--gpu", action="store_true", help="for a started ComfyUI: not on the CPU")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _arguments(argv)
    given = {name: getattr(arguments, name) for name in SETTINGS}
    settings = {name: value for name, value in given.items() if value is not None}
    try:
        workflow = load_workflow(arguments.workflow)
        settings |= dict(parsed(text) for text in arguments.set)
        fill(workflow, [image.name for image in arguments.image], arguments.text, settings)
        with reach(arguments.server, arguments.host, arguments.models, not arguments.gpu) as url:
            saved = run_workflow(
                url,
                workflow,
                arguments.out,
                arguments.image,
                arguments.text,
                settings,
                show_progress(workflow),
            )
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (FillError, client.RunError, hosts.HostError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    for path in saved:
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
