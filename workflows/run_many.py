"""Runs an API workflow over a folder of pictures, or over the rows of a table.

    python workflows/run_many.py workflows/api/edit.json --images photos/ --text "in the snow" \\
        --out results/

Starts one ComfyUI for each GPU of this machine, or one on the CPU, or uses those at --server.
With --address the servers run on the machines of a Ray cluster. Results go to --out, named as the
pictures are, and what became of every job to manifest.jsonl beside them. The same command again
runs only what is missing. Control-C and SIGTERM end it within the jobs that run. Exit code 1 if a
job failed or is missing. workflows/COLLECTIONS.md tells more.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:
    import checkout  # noqa: F401  makes the next lines work for a script

from image_to_prompt.workflows.api_client import http
from image_to_prompt.workflows.api_client.inputs import InputsError
from image_to_prompt.workflows.comfyui import hosts, server
from image_to_prompt.workflows.many import driver, jobs, tables
from image_to_prompt.workflows.many.engines import local
from image_to_prompt.workflows.many.engines.task import Engine, EngineError, Limits
from image_to_prompt.workflows.many.engines.threads import Threads
from image_to_prompt.workflows.many.missing import MissingError, require
from image_to_prompt.workflows.many.progress import Progress
from image_to_prompt.workflows.many.results.folder import InUseError
from image_to_prompt.workflows.run import add_settings, load_workflow, settings_of

ERRORS = (InputsError, http.RunError, hosts.HostError, EngineError, InUseError, MissingError)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workflow", type=Path, help="a file of workflows/api")
    parser.add_argument("--images", type=Path, help="folder of pictures, with its subfolders")
    parser.add_argument(
        "--table", type=Path, help="CSV or Parquet: a row a job, columns named as inputs are"
    )
    add_settings(parser)
    parser.add_argument("--out", default="results", help="folder or fsspec URL for the results")
    parser.add_argument("--server", metavar="URL", action="append", help="a running ComfyUI")
    parser.add_argument("--host", type=Path, help="folder of the ComfyUI to start")
    parser.add_argument(
        "--models", type=Path, action="append", default=[], help="a further folder of models"
    )
    parser.add_argument("--cpu", action="store_true", help="start servers on the CPU")
    parser.add_argument("--workers", type=_count, help="servers to start: for each GPU, or CPU")
    parser.add_argument("--threads", type=_count, help="threads of each server on the CPU")
    parser.add_argument("--address", help="of a Ray cluster; `auto` on one of its machines")
    parser.add_argument("--engine", choices=("threads", "ray"), help="ray: on this machine too")
    parser.add_argument("--pack", type=Path, help="this pack's folder on the cluster's machines")
    parser.add_argument(
        "--job-timeout", type=float, default=3600.0, metavar="SECONDS", help="limit of one try"
    )
    parser.add_argument("--verbose", action="store_true", help="a line for each job")
    arguments = parser.parse_args(argv)
    if arguments.images is None and arguments.table is None:
        parser.error("--images or --table is required")
    if arguments.address and len(arguments.server or ()) > 1:
        parser.error("on a cluster --server is one address, on each of its machines")
    if arguments.engine == "threads" and arguments.address:
        parser.error("--address needs --engine ray")
    return arguments


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 on; got {text}")
    return count


def _jobs(arguments: argparse.Namespace, graph: dict) -> list[jobs.Job]:
    if arguments.table is not None:
        found = tables.from_table(arguments.table, graph, arguments.images)
    else:
        found = jobs.from_folder(arguments.images)
    return jobs.completed(found, graph, arguments.text, settings_of(arguments, graph))


def _engine(arguments: argparse.Namespace, scratch: Path) -> Engine:
    limits = Limits(seconds=arguments.job_timeout)
    if arguments.address or arguments.engine == "ray":
        require("ray", "a Ray cluster")
        from image_to_prompt.workflows.many.engines import cluster

        spec = cluster.Spec(
            pack=str(arguments.pack or hosts.PACK),
            host=str(arguments.host) if arguments.host else None,
            server=arguments.server[0] if arguments.server else None,
            models=tuple(map(str, arguments.models)),
            cpu=arguments.cpu,
            threads=arguments.threads,
            limits=limits,
        )
        workers, verbose = arguments.workers, arguments.verbose
        return cluster.Cluster(arguments.address, spec, workers, scratch, verbose)
    if arguments.server:
        for url in arguments.server:
            http.split(url)
        urls = [url.rstrip("/") for url in arguments.server]
        return Threads(local.use_workers(urls, scratch, limits))
    host = hosts.host_in(arguments.host) if arguments.host else hosts.first()
    found = [local.Device(True)] if arguments.cpu else local.devices(host)
    each = [local.shared(one, arguments.workers or 1, arguments.threads) for one in found]
    on = [device for part in each for device in part]
    print(f"starting {host}, {len(on)} times", file=sys.stderr)
    return Threads(local.start_workers(host, arguments.models, on, scratch, limits))


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _arguments(argv)
    try:
        with server.ended_by_sigterm():
            return _run(arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (*ERRORS, OSError) as error:
        print(error, file=sys.stderr)
        return 1


def _run(arguments: argparse.Namespace) -> int:
    graph = load_workflow(arguments.workflow)
    found = _jobs(arguments, graph)
    destination = driver.destination(arguments.out)
    with destination.held():
        progress = Progress(len(found), arguments.verbose)
        counted = driver.run_collection(
            found, graph, destination, lambda: _engine(arguments, destination.scratch), progress
        )
    return 1 if counted.failed or counted.missing else 0


if __name__ == "__main__":
    sys.exit(main())
