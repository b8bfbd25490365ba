"""Every touch of ComfyUI. Read in 0.3.64 and 0.33.0; what differs is said where it matters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from comfy_api.latest import ComfyExtension, io, ui
from torch import Tensor

from ...projection import ImageToPromptError, first_eos

__all__ = ["ComfyExtension", "io", "ui"]

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
