"""A projection's changes of the U-Net as weight patches of a MODEL. Read in 0.3.64, 0.33.0."""

from __future__ import annotations

from typing import Any

import comfy.lora

from ....projection import ImageToPromptError, UNetDeltas, check_maps, lora_state
from .checks import ATTACHMENT, PREFIX, layers_of


def patch_model(model: Any, change: UNetDeltas | None, strength: float) -> Any:
    """A clone of the MODEL whose linear maps are changed; the given one stays as it is.

    The patches are what core's LoRA loader makes of the same changes, so a step costs what it
    costs without. At strength 0 nothing is patched. Raises ImageToPromptError for a change that
    has no place in this model.
    """
    patched = model.clone()
    if change is None or strength == 0:
        return patched
    check_maps(change, layers_of(model))
    state = lora_state(change, PREFIX)
    keys = comfy.lora.model_lora_keys_unet(model.model, {})
    patches = comfy.lora.load_lora(state, keys)
    wanted = {f"{PREFIX}{name}.weight" for name in change.deltas}
    added = set(patched.add_patches(patches, strength))
    if added != wanted:
        raise ImageToPromptError(
            "a MODEL that takes every change of the projection",
            f"one without {', '.join(sorted(wanted - added)[:3])}",
            "Use the projection with the checkpoint that it was fitted on (socket model).",
        )
    patched.set_attachments(ATTACHMENT, strength)
    return patched
