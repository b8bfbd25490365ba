"""Runs an API workflow on ComfyUI, without its page.

    python workflows/run.py workflows/api/edit.json --image cat.png --text "in the snow" --seed 1

Uses the ComfyUI at --server, or else one that listens on port 8188; failing that it starts the
one at --host, or the first it finds (--hosts lists them), on the CPU, without writing into its
folder. What the workflow saves is saved below --out, in the same subfolders; a file that exists is
never replaced. Exit code 1 if the server refuses the workflow or a node fails; the message is the
server's own. Control-C and SIGTERM interrupt this run on the server.
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

from image_to_prompt.workflows.api_client import client, http, outputs
from image_to_prompt.workflows.api_client.inputs import SETTINGS, InputsError, parsed, with_inputs
from image_to_prompt.workflows.comfyui import hosts, server

USUAL_SERVER = "http://127.0.0.1:8188"
BASES = hosts.PACK / "build" / "comfy"
_NUMBERS: dict[str, type] = {"seed": int, "steps": int, "width": int, "height": int}
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
    """Run an API workflow on the server at `url`; the files it made, saved below `out`.

    No file of `out` is replaced. images, texts, settings: see `with_inputs`. Raises InputsError,
    client.RunError, OSError.
    """
    with_inputs(workflow, [image.name for image in images], texts, settings)  # before any upload
    names = [client.upload(url, image) for image in images]
    entry = client.run(url, with_inputs(workflow, names, texts, settings), progress)
    return outputs.fetch(url, entry, out, lambda told: print(told, file=sys.stderr))


def load_workflow(path: Path) -> dict:
    """An API workflow from its file. Raises InputsError for anything else."""
    try:
        graph = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputsError(f"{path}: {error}") from error
    if isinstance(graph, dict) and "nodes" in graph:
        raise InputsError(
            f"{path} is in the page's format. Take its twin in workflows/api, or export it with "
            "Workflow > Export (API)."
        )
    if not isinstance(graph, dict) or not all(map(_is_node, graph.values())):
        raise InputsError(f"{path} is not a workflow in API format")
    return graph


def _is_node(node: object) -> bool:
    return (
        isinstance(node, dict)
        and isinstance(node.get("class_type"), str)
        and isinstance(node.get("inputs"), dict)
    )


@contextmanager
def reach(
    url: str | None, host: Path | None, models: Sequence[Path] = (), cpu: bool = True
) -> Iterator[str]:
    """The address of a ComfyUI: one that runs, else one started for the while of the block."""
    if url is None and host is None and _answers(USUAL_SERVER):
        url = USUAL_SERVER
    if url is not None:
        http.split(url)  # says what an address looks like
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
    except client.RunError:
        return False


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Options for texts, SETTINGS and any other value of a workflow; see `settings_of`."""
    parser.add_argument(
        "--text", action="append", default=[], help="for the nodes that make prompts, in order"
    )
    for name, places in SETTINGS.items():
        option = f"--{name.replace('_', '-')}"
        named = " or ".join(places)
        parser.add_argument(option, type=_NUMBERS.get(name, str), help=f"sets {named}")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NODE.INPUT=VALUE",
        help="any other value, by a node's id, class or title",
    )


def settings_of(arguments: argparse.Namespace, workflow: dict) -> dict[str, object]:
    """What the options of `add_settings` set. Raises InputsError."""
    given = {name: getattr(arguments, name) for name in SETTINGS}
    settings = {name: value for name, value in given.items() if value is not None}
    return settings | dict(parsed(text, workflow) for text in arguments.set)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workflow", type=Path, nargs="?", help="a file of workflows/api")
    parser.add_argument(
        "--hosts", action="store_true", help="list every ComfyUI that is found, and run nothing"
    )
    parser.add_argument(
        "--image", type=Path, action="append", default=[], help="one per LoadImage node, in order"
    )
    add_settings(parser)
    parser.add_argument("--out", type=Path, default=Path("output"), help="folder for what is saved")
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
    arguments = parser.parse_args(argv)
    if arguments.workflow is None and not arguments.hosts:
        parser.error("the following arguments are required: workflow")
    return arguments


def list_hosts() -> int:
    """Print every ComfyUI of this machine and what runs it; 1 if there is none."""
    found = hosts.search()
    for host in found.hosts:
        print(f"{host}, run by {host.python}")
    for problem in found.problems:
        print(problem)
    return 0 if found.hosts else 1


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _arguments(argv)
    if arguments.hosts:
        return list_hosts()
    try:
        with server.ended_by_sigterm():
            saved = _run(arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (InputsError, client.RunError, hosts.HostError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    for path in saved:
        print(path)
    return 0


def _run(arguments: argparse.Namespace) -> list[Path]:
    workflow = load_workflow(arguments.workflow)
    settings = settings_of(arguments, workflow)
    images, texts = arguments.image, arguments.text
    with_inputs(workflow, [image.name for image in images], texts, settings)
    with reach(arguments.server, arguments.host, arguments.models, not arguments.gpu) as url:
        progress = show_progress(workflow)
        return run_workflow(url, workflow, arguments.out, images, texts, settings, progress)


if __name__ == "__main__":
    sys.exit(main())
