"""The jobs of a collection: one for each picture of a folder, or for each row of a table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from image_to_prompt.workflows.api_client.inputs import (
    InputsError,
    nodes_of,
    with_inputs,
)
from image_to_prompt.workflows.api_client.outputs import mended

PICTURES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"))
_SEED = b"image-to-prompt seed 1\0"
_SEED_BITS = 53  # the page's numbers are doubles: it rounds larger seeds


@dataclass(frozen=True)
class Job:
    """One run of the workflow.

    name: tells it from the others, and decides its seed. images: one for each LoadImage node.
    uploads: the names under which the server gets them. place: where its results go, without an
    ending, below the folder of results. problem: why it cannot run; None if it can.
    """

    name: str
    images: tuple[Path, ...] = ()
    uploads: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    place: str = ""
    problem: str | None = None


def seed_of(name: str) -> int:
    """A job's seed from its name: the start of its SHA-256, below 2**53.

    So a picture depends neither on the order of jobs nor on the machine that draws it.
    """
    digest = hashlib.sha256(_SEED + name.encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - _SEED_BITS)


def takes_seed(graph: dict) -> bool:
    """Whether the workflow has a sampler whose seed can be set."""
    try:
        with_inputs(graph, settings={"seed": 0})
    except InputsError:
        return False
    return True


def key_of(graph: dict, job: Job) -> str:
    """SHA-256 of all that decides a job's result: the graph, its values, its pictures' bytes.

    Raises OSError for a picture that cannot be read, InputsError for values without a place.
    """
    digests = [f"sha256:{file_hash(image)}" for image in job.images]
    filled = with_inputs(graph, digests, job.texts, job.settings)
    return hashlib.sha256(json.dumps(filled, sort_keys=True).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()


def from_folder(folder: Path) -> Iterator[Job]:
    """A job for each picture below a folder, named by its path in it, sorted by name."""
    if not folder.is_dir():
        raise InputsError(f"{folder} is no folder of pictures")
    found = [
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in PICTURES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not found:
        raise InputsError(f"no pictures ({', '.join(sorted(PICTURES))}) in {folder}")
    for path in sorted(found):
        name = path.relative_to(folder).as_posix()
        yield Job(name, (path,), (name.replace("/", "-"),))


def completed(
    jobs: Iterable[Job], graph: dict, texts: Sequence[str], settings: Mapping[str, object]
) -> list[Job]:
    """The jobs with what holds for all of them, a seed each, and their places.

    A job's own texts and settings come before those of all. Raises InputsError where the workflow
    takes another number of pictures, or two jobs have one name.
    """
    loaders, seeded = len(nodes_of(graph, "LoadImage")), takes_seed(graph)
    done = []
    for job in jobs:
        if len(job.images) not in (0, loaders) and job.problem is None:
            raise InputsError(
                f"{job.name}: the workflow takes {loaders} pictures; got {len(job.images)}. Name "
                "them in a table with the columns image, image_2, ..."
            )
        seed = {"seed": seed_of(job.name)} if seeded else {}
        own = {**seed, **settings, **job.settings}
        done.append(
            Job(job.name, job.images, job.uploads, job.texts or tuple(texts), own, "", job.problem)
        )
    return _placed(done)


def _placed(jobs: Sequence[Job]) -> list[Job]:
    """The jobs with places of their own: the name without its ending where that is enough."""
    short: dict[str, int] = {}
    for job in jobs:
        short[_fold(_place(job.name, False))] = short.get(_fold(_place(job.name, False)), 0) + 1
    taken: dict[str, str] = {}
    placed = []
    for job in jobs:
        place = _place(job.name, whole=short[_fold(_place(job.name, False))] > 1)
        if _fold(place) in taken:
            raise InputsError(
                f"two jobs would save under one name: {taken[_fold(place)]!r} and {job.name!r}. "
                "Give the rows of the table a column `name`, or rename a picture."
            )
        taken[_fold(place)] = job.name
        placed.append(
            Job(job.name, job.images, job.uploads, job.texts, job.settings, place, job.problem)
        )
    return placed


def _place(name: str, whole: bool) -> str:
    path = PurePosixPath(name.replace("\\", "/"))
    ending = path.suffix.lower() in PICTURES and not whole
    parts = [*path.parts[:-1], path.stem if ending else path.name]
    mended_parts = [mended(part) for part in parts if part.strip("/")]
    return "/".join(part for part in mended_parts if part) or "output"


def _fold(place: str) -> str:
    return place.casefold()  # some file systems do not tell A from a
