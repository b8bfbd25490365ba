"""The CONDITIONING of a prompt of SD 2.x or SDXL that was saved."""

from __future__ import annotations

from typing import Any

from ...projection import EncodedPrompt, ImageToPromptError
from ...projection.families.saved import FamilyPrompt, saved_prompt
from ..host.families.clip import family_of, layer_of
from .entries import Made, text_entries


def saved_entries(
    prompt: FamilyPrompt, clip: Any, text: str, text_weight: float, strength: float, blend: str
) -> list:
    """One CONDITIONING; more than one entry only where hooks schedule the text encoders.

    Raises ImageToPromptError for the CLIP of another family, or read at another layer.
    """
    _check_clip(prompt, clip)

    def made(words: EncodedPrompt, weight: float) -> Made:
        _check_pooled(prompt, words)
        return saved_prompt(prompt, words, weight, blend)

    return text_entries(clip, prompt.family, text, [made], [(text_weight, strength)])


def _check_clip(prompt: FamilyPrompt, clip: Any) -> None:
    family, found = prompt.family, family_of(clip)
    if found != family:
        raise ImageToPromptError(
            f"the text encoders of {family.name}, for which the prompt was saved",
            f"those of {found.name}",
            f"Connect the CLIP of an {family.name} checkpoint (socket clip), or choose another "
            "file (file).",
        )
    layer = layer_of(clip, family)
    if layer != prompt.layer:
        raise ImageToPromptError(
            f"clip layer {prompt.layer}, at which the prompt was saved",
            f"{layer}",
            "Correct or remove CLIP Set Last Layer before socket clip.",
        )


def _check_pooled(prompt: FamilyPrompt, words: EncodedPrompt) -> None:
    found, wanted = prompt.pooled.shape[1], words.pooled.shape[-1]
    if found != wanted:
        raise ImageToPromptError(
            f"a prompt with pooled vectors of width {wanted}",
            f"{found}",
            "Choose a file in models/prompts that Save Prompt wrote (file).",
        )
