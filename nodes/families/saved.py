"""The CONDITIONING of a prompt of SD 2.x or SDXL that was saved."""

from __future__ import annotations

from typing import Any

from ...projection import apply_strength, pooled_strength
from ...projection.families.saved import FamilyPrompt, saved_prompt
from ..host.families.clip import check_family, encode_family_text
from ..inputs.checks import check_finite


def saved_entries(
    prompt: FamilyPrompt, clip: Any, text: str, text_weight: float, strength: float, blend: str
) -> list:
    """One CONDITIONING; more than one entry only where hooks schedule the text encoders.

    Raises ImageToPromptError for the CLIP of another family.
    """
    check_family(clip, prompt.family, prompt.layer)
    encoded = null = encode_family_text(clip, text, prompt.family)
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
