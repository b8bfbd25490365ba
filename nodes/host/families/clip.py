"""Which model family a CLIP belongs to, and its prompts part by part. Read in 0.3.64 and 0.33.0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ....projection import (
    FAMILIES,
    EncodedPrompt,
    Family,
    ImageToPromptError,
    first_eos,
    has_words,
)
from ..text import token_ids
from .names import model_of


def family_of(clip: Any) -> Family:
    """The family whose text encoders these are.

    Raises ImageToPromptError, naming the model where it is known, for any other.
    """
    tokens = clip.tokenize("")
    for family in FAMILIES.values():
        if _is_of(clip, set(tokens), family):
            return family
    raise ImageToPromptError(
        f"text encoders of {', '.join(FAMILIES)}",
        f"{model_of(set(tokens))} text encoder (parts: {', '.join(sorted(tokens))})",
        "Connect the CLIP of a checkpoint of one of these families (socket clip).",
    )


def _is_of(clip: Any, tokens: set[str], family: Family) -> bool:
    """Whether the CLIP has the family's encoders, as wide and padded as they should be.

    The refiner's tokenizer is SDXL's, so the tokens do not tell the two apart; Stable Cascade's
    encoder is as wide as the refiner's and padded otherwise.
    """
    found = {key for key in ("l", "g", "h") if hasattr(clip.cond_stage_model, f"clip_{key}")}
    if found != set(family.keys) or not found <= tokens <= {"l", "g", "h"}:
        return False
    for part in family.parts:
        encoder = encoder_of(clip, part.key)
        width = encoder.transformer.get_input_embeddings().weight.shape[1]
        if width != part.width or encoder.special_tokens["pad"] != part.pad_id:
            return False
    return True


def encoder_of(clip: Any, key: str) -> Any:
    """The host's text encoder of a part."""
    return getattr(clip.cond_stage_model, f"clip_{key}")


def layer_of(clip: Any, family: Family) -> int:
    """The layer that the host reads: the family's, or that of CLIP Set Last Layer.

    Raises ImageToPromptError for one that an encoder does not have.
    """
    layer = family.layer if clip.layer_idx is None else int(clip.layer_idx)
    depth = min(encoder_of(clip, key).num_layers for key in family.keys)
    if not -depth <= layer < 0:
        raise ImageToPromptError(
            f"a clip layer from -{depth} to -1",
            f"{layer}",
            "Correct CLIP Set Last Layer before socket clip.",
        )
    return layer


def check_family(clip: Any, family: Family, layer: int) -> None:
    """Raise ImageToPromptError unless the CLIP is that of the family, read at this layer."""
    found = None if clip is None else family_of(clip)
    if found is None or found.name != family.name:
        got = "none: the checkpoint holds no text encoder" if found is None else found.name
        raise ImageToPromptError(
            f"the text encoders of {family.name}, which the projection was made for",
            got,
            f"Connect the CLIP of an {family.name} checkpoint (socket clip), or make the "
            "projection for this CLIP: connect it to LoadProjection (socket clip).",
        )
    used = layer_of(clip, family)
    if used != layer:
        raise ImageToPromptError(
            f"clip layer {layer}, which the projection was made for",
            f"{used}",
            "Remove CLIP Set Last Layer before socket clip, or make the projection with it.",
        )


@dataclass(frozen=True, eq=False)
class EncodedFamilyText:
    """One text as core CLIPTextEncode gives it, whole and part by part.

    entries: [states (1, 77 n, W), extras] for each entry of the conditioning; prompts: the same
    entries part by part.
    """

    entries: list[tuple[Tensor, dict[str, Any]]]
    prompts: list[EncodedPrompt]

    @property
    def has_words(self) -> bool:
        """Whether the text has any token of its own."""
        return has_words(next(iter(self.prompts[0].eos.values())))


def encode_family_text(clip: Any, text: str, family: Family) -> EncodedFamilyText:
    """A text encoded as core CLIPTextEncode does, weights, hooks and long prompts included."""
    tokens = clip.tokenize(text)
    entries = [(states, extras) for states, extras in clip.encode_from_tokens_scheduled(tokens)]
    eos = {key: [first_eos(ids) for ids in token_ids(tokens[key])] for key in family.keys}
    widths = [part.width for part in family.parts]
    prompts = []
    for states, extras in entries:
        parts = dict(zip(family.keys, states.split(widths, dim=-1), strict=True))
        prompts.append(EncodedPrompt(parts, eos, extras["pooled_output"]))
    return EncodedFamilyText(entries, prompts)
