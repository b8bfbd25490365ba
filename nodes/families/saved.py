"""The CONDITIONING of a prompt of SD 2.x or SDXL that was saved."""

from __future__ import annotations

from typing import Any

from ...projection import ImageToPromptError, apply_strength, pooled_strength
from ...projection.families.saved import FamilyPrompt, saved_prompt
from ..host.families.clip import EncodedFamilyText, encode_family_text, family_of, layer_of
from ..inputs.checks import check_finite


def saved_entries(
    prompt: FamilyPrompt, clip: Any, text: str, text_weight: float, strength: float, blend: str
) -> list:
    """One CONDITIONING; more than one entry only where hooks schedule the text encoders.

    Raises ImageToPromptError for the CLIP of another family, or read at another layer.
    """
    _check_clip(prompt, clip)
    encoded = null = encode_family_text(clip, text, prompt.family)
    _check_pooled(prompt, encoded)
    if strength != 1 and encoded.has_words:
        null = encode_family_text(clip, "", prompt.family)
    found = []
    for (states, extras), words, (nulls, _), nothing in zip(
        encoded.entries, encoded.prompts, null.entries, null.prompts, strict=True
    ):
        made, pooled = saved_prompt(prompt, words, text_weight, blend)
        made = apply_strength(made.to(states), nulls, strength)
        pooled = pooled_strength(pooled, nothing.pooled, strength)
        check_finite([made, pooled], text_weight, strength)
        found.append([made, {**extras, "pooled_output": pooled}])
    return found


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


def _check_pooled(prompt: FamilyPrompt, encoded: EncodedFamilyText) -> None:
    found, wanted = prompt.pooled.shape[1], encoded.prompts[0].pooled.shape[-1]
    if found != wanted:
        raise ImageToPromptError(
            f"a prompt with pooled vectors of width {wanted}",
            f"{found}",
            "Choose a file in models/prompts that Save Prompt wrote (file).",
        )
