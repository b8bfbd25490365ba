"""Fetches what a run saved. Names that the server gives decide nothing outside of one folder.

Taken are the files that a run saved into the server's output folder (not previews), of the kinds
that ComfyUI's own nodes save: KINDS says under which name of an output node, and ENDINGS of what
kind. Everything else is left on the server and told.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from . import http
from .answers import one_line
from .http import RunError
from .inputs import node_order

# `files` is Save Text's, `gifs` that of the video nodes of other packs. An animation or a video
# of core's is listed under `images`; `text` and `result` of a node are values and no files.
KINDS = ("images", "gifs", "videos", "video", "audio", "3d", "latents", "files")
ENDINGS = frozenset(
    {
        *("png", "jpg", "jpeg", "webp", "gif", "avif", "bmp", "tif", "tiff", "svg", "exr", "hdr"),
        *("mp4", "webm", "mkv", "mov", "flac", "mp3", "opus", "ogg", "wav", "m4a"),
        *("glb", "gltf", "obj", "mtl", "fbx", "stl", "ply", "usdz", "splat", "ksplat", "spz"),
        *("latent", "txt", "md", "json", "csv"),
    }
)
# How files of a kind begin: a page of an error is no picture.
_BEGINNINGS: dict[str, tuple[bytes, ...]] = {
    "png": (b"\x89PNG\r\n\x1a\n",),
    "jpg": (b"\xff\xd8\xff",),
    "jpeg": (b"\xff\xd8\xff",),
    "gif": (b"GIF87a", b"GIF89a"),
    "webp": (b"RIFF",),
}
_RESERVED = {"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in "123456789")}
_MOST_BYTES = 4 * 2**30  # of one file
_MOST_FILES = 10_000
_MOST_FOLDERS = 8  # above a file
_MOST_LETTERS = 100  # of a name; and at most 200 bytes, where a file system takes 255
_SECONDS = 600.0
_IN_MEMORY = 64 * 2**20

Tell = Callable[[str], object]


@dataclass(frozen=True)
class Output:
    """A file of the server's output folder, by the server's names."""

    filename: str
    subfolder: str

    @property
    def ending(self) -> str:
        return self.filename.rpartition(".")[2].lower() if "." in self.filename else ""

    def __str__(self) -> str:
        return one_line(f"{self.subfolder}/{self.filename}" if self.subfolder else self.filename)


def fetch(url: str, entry: dict, folder: Path, tell: Tell = lambda _: None) -> list[Path]:
    """Save what a run's output nodes saved, in the order of nodes, below this folder.

    Subfolders are kept. No file is replaced: where a name is taken, the next free one is used.
    tell: called with a sentence for each output that is left on the server. Raises RunError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    saved = []
    for output in list(dict.fromkeys(_listed(entry["outputs"])))[:_MOST_FILES]:
        if output.ending not in ENDINGS:
            tell(f"left on the server: {output}, no kind of file that a workflow saves")
            continue
        query = {"filename": output.filename, "subfolder": output.subfolder, "type": "output"}
        address = f"{url}/view?{urllib.parse.urlencode(query, errors='replace')}"
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as content:
            http.download(address, content, _SECONDS, _MOST_BYTES)  # type: ignore[arg-type]
            _require_kind(address, content, output)  # type: ignore[arg-type]
            target = folder.joinpath(*local_parts(output))
            saved.append(_save(content, folder, target))  # type: ignore[arg-type]
    return saved


def local_parts(output: Output) -> list[str]:
    """Folders and name for a file of the server: none hidden, none that leads elsewhere."""
    folders = [mended(part) for part in output.subfolder.replace("\\", "/").split("/")]
    name = mended(output.filename.replace("\\", "/").rpartition("/")[2], output.ending)
    return [*[part for part in folders if part][:_MOST_FOLDERS], name]


def mended(name: str, ending: str = "") -> str:
    """A name of the server as one that every file system takes; '' if nothing is left of it."""
    stem = name[: -len(ending) - 1] if ending else name
    stem = "".join(c if c.isprintable() and c not in '<>:"/\\|?*' else "_" for c in stem)
    stem = stem[:_MOST_LETTERS].encode()[:200].decode(errors="ignore").strip(" .")
    if stem.split(".")[0].strip().lower() in _RESERVED:
        stem = f"_{stem}"
    return f"{stem or 'output'}{name[-len(ending) - 1 :]}" if ending else stem


def _listed(outputs: dict) -> Iterator[Output]:
    """Saved files, by node and in each node's order. What is no file of a run is passed over."""
    for number in sorted(outputs, key=node_order):
        node = outputs[number]
        for kind in KINDS:
            items = node.get(kind) if isinstance(node, dict) else None
            for item in items if isinstance(items, list) else ():
                if not isinstance(item, dict) or item.get("type") != "output":
                    continue
                filename, subfolder = item.get("filename"), item.get("subfolder") or ""
                if isinstance(filename, str) and filename and isinstance(subfolder, str):
                    yield Output(filename, subfolder)


def _require_kind(address: str, content: BinaryIO, output: Output) -> None:
    content.seek(0)
    start = content.read(16)
    if not start:
        raise RunError(f"{address}: expected a file; got an empty answer")
    beginnings = _BEGINNINGS.get(output.ending)
    if beginnings is not None and not start.startswith(beginnings):
        raise RunError(f"{address}: expected a .{output.ending} file; got {start!r}")


def _save(content: BinaryIO, folder: Path, target: Path) -> Path:
    """Write a new file at this place, or at the next free name beside it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.parent.resolve().is_relative_to(folder.resolve()):
        raise RunError(f"{target.parent} leads out of {folder}")
    file, path = _created(target)
    content.seek(0)
    try:
        with file:
            shutil.copyfileobj(content, file)
    except BaseException:
        path.unlink(missing_ok=True)  # half of a file, which this call has made
        raise
    return path


def _created(target: Path) -> tuple[BinaryIO, Path]:
    """A file that did not exist, opened for writing: exclusively, so that none is replaced."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    number = 1
    while True:
        name = target.name if number == 1 else f"{target.stem}-{number}{target.suffix}"
        path = target.with_name(name)
        try:
            return os.fdopen(os.open(path, flags, 0o666), "wb"), path
        except FileExistsError:
            number += 1
