"""A custom node of the soak's server: small models with random weights, kept for its whole life."""

from __future__ import annotations

import runpy
import tempfile
from functools import cache
from pathlib import Path

runpy.run_path(str(Path(__file__).resolve().parents[3] / "workflows" / "checkout.py"))


@cache
def models() -> tuple:
    """MODEL, CLIP, VAE and CLIP_VISION."""
    from image_to_prompt.tests.host import small_models, small_unet

    reference = small_models.reference_clip(3)
    return (
        small_unet.host_model(small_unet.unet_state(small_unet.SMALL)),
        small_models.host_clip(reference),
        small_unet.host_vae(),
        small_models.host_clip_vision(reference, Path(tempfile.mkdtemp())),
    )


class SoakModels:
    CATEGORY = "tests"
    RETURN_TYPES = ("MODEL", "CLIP", "VAE", "CLIP_VISION")
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {"required": {}}

    def load(self) -> tuple:
        return models()


NODE_CLASS_MAPPINGS = {"SoakModels": SoakModels}
