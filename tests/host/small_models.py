"""Small random CLIP halves in the host's own classes, and the same weights in transformers.

Random weights: these prove that the arithmetic agrees, nothing about pictures.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

ROOT = Path(__file__).resolve().parent.parent.parent
WIDTH, LAYERS = 768, 2
VISION = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 16,
    "intermediate_size": 512,
    "image_size": 224,
    "patch_size": 56,
    "num_channels": 3,
    "hidden_act": "quick_gelu",
    "projection_dim": WIDTH,
    "layer_norm_eps": 1e-5,
}


def reference_clip(seed: int) -> CLIPModel:
    """A transformers CLIPModel of the widths of ViT-L/14, two layers deep, fp16-rounded."""
    text = {
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 12,
        "intermediate_size": 4 * WIDTH,
        "vocab_size": 49408,
        "eos_token_id": 49407,
        "bos_token_id": 49406,
        "hidden_act": "quick_gelu",
    }
    config = CLIPConfig(text_config=text, vision_config=VISION, projection_dim=WIDTH)
    model = CLIPModel(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.state_dict().items():
        if weight.is_floating_point():
            weight.copy_(_random(name, weight, generator).half())
    return model


def _random(name: str, like: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(like.shape, generator=generator)
    if "norm" in name and name.endswith("weight"):
        return 1 + 0.1 * noise
    if name == "text_projection.weight":
        # Flat but for a tail, as trained ones are: random numbers would be refused.
        u, _, v = torch.linalg.svd(noise)
        return u @ torch.diag(torch.linspace(0.7, 0.05, len(noise))) @ v
    return 0.04 * noise


def host_clip_vision(reference: CLIPModel, folder: Path):
    """The same vision encoder in the host's unmodified class."""
    import comfy.clip_vision

    config = folder / "vision.json"
    config.write_text(json.dumps(VISION))
    model = comfy.clip_vision.ClipVisionModel(str(config))
    missing, _ = model.load_sd(_half(reference, ("vision_model.", "visual_projection.")))
    assert not [key for key in missing if "position_ids" not in key]
    return model


def host_clip(reference: CLIPModel):
    """The same text encoder as the host loads an SD 1.x text encoder."""
    import comfy.sd

    return comfy.sd.load_text_encoder_state_dicts(
        [_half(reference, ("text_model.",))],
        clip_type=comfy.sd.CLIPType.STABLE_DIFFUSION,
        model_options={"model_config": {"num_hidden_layers": LAYERS}},
    )


def _half(reference: CLIPModel, prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    state = reference.state_dict()
    return {k: v.half().clone() for k, v in state.items() if k.startswith(prefixes)}
