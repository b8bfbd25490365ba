"""Every touch of ComfyUI. Read in 0.3.64 and 0.33.0; what differs is said where it matters."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import folder_paths
from comfy_api.latest import ComfyExtension, io, ui
from torch import Tensor

from ...projection import ImageToPromptError, first_eos

__all__ = ["ComfyExtension", "io", "ui"]

PROJECTIONS = "projections"
# Where a full CLIP file may lie: it serves the text loaders and the vision loader alike.
CLIP_KINDS = ("text_encoders", "clip_vision")
SUFFIX = ".safetensors"
_SD1_ADVICE = "Connect the CLIP of an SD 1.x checkpoint (socket clip)."


def extension_of(nodes: list[type[io.ComfyNode]]) -> ComfyExtension:
    """A V3 extension that lists these nodes."""

    class Extension(ComfyExtension):
        async def get_node_list(self) -> list[type[io.ComfyNode]]:
            return nodes

    return Extension()


def schema(search_aliases: list[str], **fields: Any) -> io.Schema:
    """A node's schema, with the words it is also found by where the host knows such (0.33)."""
    if "search_aliases" in io.Schema.__dataclass_fields__:
        fields["search_aliases"] = search_aliases
    return io.Schema(**fields)


# --- folders ---------------------------------------------------------------------------------


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


def new_projection_path(prefix: str) -> str:
    """A free path in the projections folder, numbered as core's save nodes number theirs.

    Raises ImageToPromptError for a prefix that is empty or leads out of the folder.
    """
    return _new_path(PROJECTIONS, prefix)


def new_lora_path(prefix: str) -> str:
    """As `new_projection_path`, in the folder that core's LoRA loader lists."""
    return _new_path("loras", prefix)


def _new_path(kind: str, prefix: str) -> str:
    if "\0" in prefix:  # the file system's own functions would not even compare it
        raise _bad_prefix(kind, prefix)
    root = folder_paths.get_folder_paths(kind)[0]
    target = os.path.realpath(os.path.join(root, prefix))
    inside = os.path.commonpath([os.path.realpath(root), target]) == os.path.realpath(root)
    name = os.path.basename(os.path.normpath(prefix))
    if not inside or not prefix.strip() or name in ("", ".", ".."):
        raise _bad_prefix(kind, prefix)
    os.makedirs(root, exist_ok=True)
    folder, name, counter, _, _ = folder_paths.get_save_image_path(prefix, root)
    return os.path.join(folder, f"{name}_{counter:05}_{SUFFIX}")


def _bad_prefix(kind: str, prefix: str) -> ImageToPromptError:
    return ImageToPromptError(
        f"a file name inside the {kind} folder", repr(prefix), "Correct filename_prefix."
    )


# --- text ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class EncodedText:
    """One text through the user's CLIP, as core CLIPTextEncode gives it.

    entries: [states (1, 77 n, D), extras] for each entry of the conditioning; more than one
    only where hooks schedule the encoder. eos: first EOS of each of the n chunks.
    """

    entries: list[tuple[Tensor, dict[str, Any]]]
    eos: list[int]


def check_clip(clip: Any, text_width: int, encoder_name: str) -> None:
    """Raise ImageToPromptError unless `clip` is an SD 1.x text encoder of this width."""
    if clip is None:
        raise ImageToPromptError(
            "a CLIP", "none: the checkpoint holds no text encoder", _SD1_ADVICE
        )
    kinds = sorted(clip.tokenize(""))
    if kinds != ["l"]:
        names = {"g": "SDXL", "h": "SD 2.x", "t5xxl": "T5-based"}
        likely = next((names[k] for k in names if k in kinds), "another model's")
        raise ImageToPromptError(
            f"the text encoder of SD 1.x ({encoder_name})",
            f"{likely} text encoder (parts: {', '.join(kinds)})",
            _SD1_ADVICE,
        )
    width = clip.cond_stage_model.clip_l.transformer.get_input_embeddings().weight.shape[1]
    if width != text_width:
        raise ImageToPromptError(
            f"a text encoder of width {text_width} ({encoder_name})", f"width {width}", _SD1_ADVICE
        )


def encode_text(clip: Any, text: str) -> EncodedText:
    """Encode as core CLIPTextEncode does, clip skip, weights, hooks and long prompts included."""
    tokens = clip.tokenize(text)
    conditioning = clip.encode_from_tokens_scheduled(tokens)
    return EncodedText([(c, extras) for c, extras in conditioning], eos_of(tokens))


def eos_of(tokens: dict[str, list]) -> list[int]:
    """First EOS of each chunk of what `clip.tokenize` gives for an SD 1.x text encoder."""
    # A textual inversion stands in the list as its tensor, never equal to a token id.
    return [
        first_eos([-1 if isinstance(token, (Tensor, dict)) else token for token, *_ in chunk])
        for chunk in tokens["l"]
    ]


# --- pictures --------------------------------------------------------------------------------


def check_clip_vision(clip_vision: Any, joint_width: int, encoder_name: str) -> Tensor:
    """The vision model's own visual projection W_v, (J, V).

    Raises ImageToPromptError if there is none, or it does not end in this joint space.
    """
    weight = getattr(
        getattr(getattr(clip_vision, "model", None), "visual_projection", None), "weight", None
    )
    if weight is None or weight.shape[0] != joint_width:
        got = "a vision model without a CLIP projection"
        if weight is not None:
            got = f"a vision model of joint width {weight.shape[0]}{_known_width(weight.shape[0])}"
        raise ImageToPromptError(
            f"the vision encoder of {encoder_name} (joint width {joint_width})",
            got if clip_vision is not None else "no CLIP vision model",
            "Load the file that the projection came from, for SD 1.x clip-vit-large-patch14, "
            "with Load CLIP Vision (socket clip_vision).",
        )
    return weight


def _known_width(width: int) -> str:
    return {1024: " (ViT-H)", 1280: " (ViT-bigG)", 512: " (ViT-B)"}.get(width, "")
