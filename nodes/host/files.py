"""The folders of models and of unfinished fits, as ComfyUI knows them."""

from __future__ import annotations

import os

import folder_paths

PROJECTIONS = "projections"
# Where a full CLIP file may lie: it serves the text loaders and the vision loader alike.
CLIP_KINDS = ("text_encoders", "clip_vision")
SUFFIX = ".safetensors"
UNFINISHED = "unfinished projections"


def register_projections_folder() -> None:
    """Make `projections` a folder kind; paths the user's own configuration gave stay first."""
    paths, _ = folder_paths.folder_names_and_paths.get(PROJECTIONS, ([], set()))
    default = os.path.join(folder_paths.models_dir, PROJECTIONS)
    known = paths if default in paths else [*paths, default]
    folder_paths.folder_names_and_paths[PROJECTIONS] = (known, {SUFFIX})


def projection_files() -> list[str]:
    """Names for LoadProjection's list: saved projections, then files that may be full CLIPs."""
    names = dict.fromkeys(
        name
        for kind in (PROJECTIONS, *CLIP_KINDS)
        for name in folder_paths.get_filename_list(kind)
        if name.endswith(SUFFIX)
    )
    return list(names)


def paths_of(name: str) -> list[str]:
    """Every file of this name in the folders of `projection_files`, in their order."""
    return [
        path
        for kind in (PROJECTIONS, *CLIP_KINDS)
        if name in folder_paths.get_filename_list(kind)
        and (path := folder_paths.get_full_path(kind, name))
    ]


def searched_folders() -> list[str]:
    """The folders of `projection_files`."""
    kinds = (PROJECTIONS, *CLIP_KINDS)
    return [path for kind in kinds for path in folder_paths.get_folder_paths(kind)]


def unfinished_path(name: str) -> str:
    """Where the run of this name is kept until it is done, in the user's output folder."""
    return os.path.join(folder_paths.get_output_directory(), UNFINISHED, f"{name}{SUFFIX}")
