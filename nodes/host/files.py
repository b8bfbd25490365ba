"""The folders of models and unfinished fits, as ComfyUI knows them. Read in 0.3.64 and 0.33.0."""

from __future__ import annotations

import os
from collections.abc import Iterator

import folder_paths

from ...projection import ImageToPromptError
from ..inputs.filename_prefix import check_prefix

PROJECTIONS, LORAS, PROMPTS = "projections", "loras", "prompts"
# Where a full CLIP file may lie: it serves the text loaders and the vision loader alike.
CLIP_KINDS = ("text_encoders", "clip_vision")
SEARCHED = (PROJECTIONS, *CLIP_KINDS)
SUFFIX = ".safetensors"
UNFINISHED = "unfinished projections"
# Each number taken is one more file saved meanwhile; more than these is no chance.
_ATTEMPTS = 10_000


def register_folders() -> None:
    """Make this pack's folder kinds known; paths the user's own configuration gave stay first."""
    for kind in (PROJECTIONS, PROMPTS):
        paths, _ = folder_paths.folder_names_and_paths.get(kind, ([], set()))
        default = os.path.join(folder_paths.models_dir, kind)
        known = paths if default in paths else [*paths, default]
        folder_paths.folder_names_and_paths[kind] = (known, {SUFFIX})


def names_in(kind: str) -> list[str]:
    """The files of a folder kind, as a node's list names them."""
    return [name for name in folder_paths.get_filename_list(kind) if name.endswith(SUFFIX)]


def path_in(kind: str, name: object) -> str | None:
    """The file of this name that `names_in` lists; None where it does not."""
    known = isinstance(name, str) and name in names_in(kind)
    return folder_paths.get_full_path(kind, name) if known else None


def projection_files() -> list[str]:
    """Names for LoadProjection's list: saved projections, then files that may be full CLIPs."""
    names = dict.fromkeys(
        name
        for kind in SEARCHED
        for name in folder_paths.get_filename_list(kind)
        if name.endswith(SUFFIX)
    )
    return list(names)


def paths_of(name: str) -> list[str]:
    """Every file of this name in the folders of `projection_files`, in their order."""
    return [
        path
        for kind in SEARCHED
        if name in folder_paths.get_filename_list(kind)
        and (path := folder_paths.get_full_path(kind, name))
    ]


def new_names(kind: str, prefix: str) -> tuple[str, Iterator[str]]:
    """A folder of this kind, and names in it that are free as far as the host knows.

    Numbered as core's save nodes number theirs, `<name>_00001_.safetensors` and on; another
    process may take a name meanwhile. Raises ImageToPromptError for a prefix that is no file name
    or leads out of the folder.
    """
    prefix = check_prefix(prefix, kind)
    root = os.path.abspath(folder_paths.get_folder_paths(kind)[0])
    if not _is_inside(os.path.join(root, prefix), root):
        raise ImageToPromptError(
            f"a file name inside the {kind} folder",
            f"{prefix!r}, through a link that leads out",
            "Correct filename_prefix.",
        )
    os.makedirs(root, exist_ok=True)
    folder, name, first, *_ = folder_paths.get_save_image_path(prefix, root)
    numbers = range(max(1, first), max(1, first) + _ATTEMPTS)
    return folder, (f"{name}_{number:05}_{SUFFIX}" for number in numbers)


def _is_inside(path: str, folder: str) -> bool:
    """Whether a path stays in the folder, links followed."""
    real, whole = os.path.realpath(folder), os.path.realpath(path)
    return whole.startswith(os.path.join(real, ""))


def unfinished_path(name: str) -> str:
    """Where the run of this name is kept until it is done, in the user's output folder."""
    return os.path.join(folder_paths.get_output_directory(), UNFINISHED, f"{name}{SUFFIX}")
