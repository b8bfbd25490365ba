"""A custom node of the soak's server: small models with random weights, kept for its whole life."""

from __future__ import annotations

import os
import runpy
import sys
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

runpy.run_path(str(Path(__file__).resolve().parents[3] / "workflows" / "checkout.py"))


@cache
def models() -> tuple:
    """MODEL, CLIP, VAE and CLIP_VISION."""
    from image_to_prompt.tests.host import small_models, small_unet

    if os.environ.get("SOAK_SHORT"):
        shorten()
    reference = small_models.reference_clip(3)
    return (
        small_unet.host_model(small_unet.unet_state(small_unet.SMALL)),
        small_models.host_clip(reference),
        small_unet.host_vae(),
        small_models.host_clip_vision(reference, Path(tempfile.mkdtemp())),
    )


def shorten() -> None:
    """Leave the server's presets of Online Refine one noisy picture a step, and small sets."""
    [name] = [n for n in sys.modules if n.endswith(".nodes.refine") and "soak" not in n]
    node = sys.modules[name]
    node.REFINE = {preset: _short(config) for preset, config in node.REFINE.items()}


def _short(config):
    kept = replace(config.preservation, preserve_pairs=1, preserve_cache=2, prior_batch_size=1)
    lora = config.lora and replace(config.lora, rank=2, gradient_init_batches=1)
    noise = replace(config.noise, timesteps_per_image=1)
    return replace(config, noise=noise, preservation=kept, lora=lora)


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
